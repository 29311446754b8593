package edge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/rollcall-platform/rollcall/edge/registry"
)

// maxPeek bounds the events that a control request may ask for.
const maxPeek = 1000

// Peek is what the control socket and an Inspect of the file say of the outbox.
type Peek struct {
	Pending int              `json:"pending"`
	Bytes   int64            `json:"bytes"`
	Events  []registry.Entry `json:"events"`
}

// serveControl answers the commands of the rollcall-edge binary on a socket in
// the data directory. bbolt's file lock lets no second process look into the
// registry, and a socket file has an owner and permissions, which a TCP port on
// loopback has not. Without it the edge does its work all the same.
func (e *Edge) serveControl(ctx context.Context) error {
	path := filepath.Join(e.o.DataDir, ControlFile)
	// The registry's lock says that no other process serves it.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		e.o.Logger.Warn("no control socket: devices and forget will not work while this process runs", "path", path, "err", err)
		return nil
	}
	l, err := net.Listen("unix", path)
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		e.o.Logger.Warn("no control socket: devices and forget will not work while this process runs", "path", path, "err", err)
		return nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /devices", func(w http.ResponseWriter, _ *http.Request) { answer(w, e.Devices(), nil) })
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) {
		most, err := strconv.Atoi(r.URL.Query().Get("most"))
		if err != nil || most < 1 || most > maxPeek {
			most = maxPeek
		}
		p := Peek{}
		p.Pending, p.Bytes = e.Pending()
		p.Events, err = e.registry.Read(0, most)
		answer(w, p, err)
	})
	mux.HandleFunc("POST /devices/{mac}/forget", func(w http.ResponseWriter, r *http.Request) {
		answer(w, struct{}{}, e.Forget(r.Context(), r.PathValue("mac"), r.URL.Query().Get("reason")))
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		e.o.Logger.Warn("control socket failed", "path", path, "err", err)
	}
	return nil
}

func answer(w http.ResponseWriter, v any, err error) {
	switch {
	case errors.Is(err, registry.ErrUnknownDevice):
		http.Error(w, err.Error(), http.StatusNotFound)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
}

// ErrNotRunning says that no edge runs on a data directory.
var ErrNotRunning = errors.New("no edge is running")

// Control calls a running edge's control socket: method and path, and the JSON
// answer into out. It fails with ErrNotRunning if there is none.
func Control(ctx context.Context, dataDir, method, path string, out any) error {
	socket := filepath.Join(dataDir, ControlFile)
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, method, "http://edge"+path, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return ErrNotRunning
	}
	if err != nil {
		return fmt.Errorf("control socket %s: %w", socket, err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		var text [1024]byte
		n, _ := response.Body.Read(text[:])
		err := errors.New(string(text[:n]))
		if response.StatusCode == http.StatusNotFound {
			return fmt.Errorf("%w: %w", registry.ErrUnknownDevice, err)
		}
		return err
	}
	if err := json.NewDecoder(response.Body).Decode(out); err != nil {
		return fmt.Errorf("control socket %s: %w", socket, err)
	}
	return nil
}
