package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/listeners"
)

// connectTimeout is how long a connection may take to say CONNECT.
const connectTimeout = 10 * time.Second

// acceptor is a listener for mochi that goes on where mochi's own gives up for
// good (a failed accept, as when file descriptors run out), that does not wait
// for ever for a client's first packet, and that confines a panic in the decoder
// to the connection whose bytes caused it.
type acceptor struct {
	listener net.Listener
	log      *slog.Logger
	once     sync.Once
}

func (a *acceptor) Init(*slog.Logger) error { return nil }
func (a *acceptor) ID() string              { return "tcp" }
func (a *acceptor) Address() string         { return a.listener.Addr().String() }
func (a *acceptor) Protocol() string        { return "tcp" }

// Serve accepts until the listener is closed.
func (a *acceptor) Serve(establish listeners.EstablishFn) {
	wait := time.Duration(0)
	for {
		conn, err := a.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			wait = min(max(2*wait, 5*time.Millisecond), time.Second)
			a.log.Warn("cannot accept an MQTT connection; trying again", "err", err, "wait", wait)
			time.Sleep(wait)
			continue
		}
		wait = 0
		go a.serve(conn, establish)
	}
}

func (a *acceptor) serve(conn net.Conn, establish listeners.EstablishFn) {
	defer func() {
		if p := recover(); p != nil {
			a.log.Error("MQTT connection ended by a panic", "remote", conn.RemoteAddr().String(), "err", fmt.Sprint(p), "stack", string(debug.Stack()))
			_ = conn.Close()
		}
	}()
	_ = conn.SetDeadline(time.Now().Add(connectTimeout)) // mochi sets its own after CONNECT
	if err := establish(a.ID(), conn); err != nil {
		a.log.Debug("MQTT connection ended", "remote", conn.RemoteAddr().String(), "err", err)
	}
}

// Close stops accepting, then closes the clients.
func (a *acceptor) Close(closeClients listeners.CloseFn) {
	a.once.Do(func() {
		_ = a.listener.Close()
		closeClients(a.ID())
	})
}

// quiet passes on mochi's warnings without the packets it attaches to them, whose
// payloads belong to others, and without what the hook has said already.
type quiet struct{ slog.Handler }

func (q quiet) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && q.Handler.Enabled(ctx, level)
}

func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "publish packet error" {
		return nil
	}
	out := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	r.Attrs(func(attr slog.Attr) bool {
		if attr.Key != "pk" && attr.Key != "packet" {
			out.AddAttrs(attr)
		}
		return true
	})
	return q.Handler.Handle(ctx, out)
}

func (q quiet) WithAttrs(attrs []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(attrs)} }
func (q quiet) WithGroup(name string) slog.Handler       { return quiet{q.Handler.WithGroup(name)} }
