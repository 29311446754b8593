package admin

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
)

const (
	maxTokenFile = 64 << 10
	// minToken is the least length of a token in bytes: nobody guesses 16
	// random characters over a network.
	minToken = 16
)

// Access says by what a client proves who it is, and how the listener does. The
// files are read again as they are used, so that what they hold can be replaced
// under a running service. The zero value asks for nothing.
type Access struct {
	// TokenFile holds bearer tokens, one a line, each of 16 characters or
	// more. Each opens: to change one, add the new, then remove the old.
	TokenFile string
	// Cert and Key are PEM files of the listener's certificate and its private
	// key. With them it speaks TLS alone.
	Cert, Key string
	// ClientCA is a PEM file of authorities. A client certificate of one of
	// them opens as a token does. It needs Cert and Key.
	ClientCA string
}

// asks reports whether a client can prove itself, and so whether it must.
func (a Access) asks() bool { return a.TokenFile != "" || a.ClientCA != "" }

// check reports what is wrong with the files.
func (a Access) check() error {
	if a.TokenFile != "" {
		if _, err := readTokens(a.TokenFile); err != nil {
			return fmt.Errorf("--admin-token-file: %w", err)
		}
	}
	if (a.Cert == "") != (a.Key == "") {
		return errors.New("--admin-tls-cert and --admin-tls-key go together")
	}
	if a.ClientCA != "" && a.Cert == "" {
		return errors.New("--admin-tls-client-ca needs --admin-tls-cert and --admin-tls-key: without TLS there are no client certificates")
	}
	if a.Cert == "" {
		return nil
	}
	_, err := a.tls()
	return err
}

// readTokens reads the tokens in a file.
func readTokens(path string) ([][]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxTokenFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxTokenFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxTokenFile)
	}
	var tokens [][]byte
	for line := range bytes.Lines(b) {
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		if len(line) < minToken {
			return nil, fmt.Errorf("%s holds a token of less than %d characters: make one with: head -c 24 /dev/urandom | base64", path, minToken)
		}
		tokens = append(tokens, line)
	}
	if len(tokens) == 0 {
		return nil, fmt.Errorf("%s holds no token: make one with: head -c 24 /dev/urandom | base64", path)
	}
	return tokens, nil
}

// tls is the listener's configuration, from the files as they are now.
func (a Access) tls() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(a.Cert, a.Key)
	if err != nil {
		return nil, fmt.Errorf("--admin-tls-cert: %w", err)
	}
	// HTTP/1.1 alone: its limits are those of http.Server.
	config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, NextProtos: []string{"http/1.1"}}
	if a.ClientCA == "" {
		return config, nil
	}
	pem, err := os.ReadFile(a.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("--admin-tls-client-ca: %w", err)
	}
	config.ClientCAs = x509.NewCertPool()
	if !config.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--admin-tls-client-ca: %s holds no certificate in PEM", a.ClientCA)
	}
	// One that is given must be right; a probe has none, and sees little.
	config.ClientAuth = tls.VerifyClientCertIfGiven
	return config, nil
}

// listen wraps l in TLS where there is a certificate. Each connection has the
// files as they are then, and the last good ones while they are not whole.
func (a Access) listen(l net.Listener, logger *slog.Logger) (net.Listener, error) {
	if a.Cert == "" {
		return l, nil
	}
	good, err := a.tls()
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var bad bool
	return tls.NewListener(l, &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			mu.Lock()
			defer mu.Unlock()
			config, err := a.tls()
			if err != nil {
				if !bad {
					logger.Warn("admin listener keeps its certificate: the files cannot be read", "err", err)
				}
				bad = true
				return good, nil
			}
			good, bad = config, false
			return config, nil
		},
	}), nil
}

// gate decides which requests are served.
//
//   - A web page is kept out by two things that its author does not control: a
//     browser sends Origin with every request that could change something, and
//     a listener on loopback answers only to its own names, so that a name that
//     was rebound to 127.0.0.1 does not reach it.
//   - Where tokens or client certificates are asked for, all but the bare
//     answers of /healthz and /readyz needs one, also from this host.
//   - Where none are asked for, the listener is on loopback, and processes of
//     this host may read. Nobody may change anything.
type gate struct {
	access   Access
	loopback bool
	logger   *slog.Logger
	bad      atomic.Bool // the token file could not be read last time
}

// wrap refuses requests of web pages, bounds bodies, and keeps a panic of next
// within its request.
func (g *gate) wrap(next http.Handler) http.Handler {
	next = http.MaxBytesHandler(next, maxBody)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				g.logger.Error("admin request panics", "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
				panic(http.ErrAbortHandler) // net/http ends the connection, and says no more
			}
		}()
		switch {
		case r.Header.Get("Origin") != "":
			http.Error(w, "this listener is not for web pages", http.StatusForbidden)
		case g.loopback && !ownName(r.Host):
			http.Error(w, "this listener answers to localhost and to loopback addresses only", http.StatusMisdirectedRequest)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// protect serves next to whoever may see it.
func (g *gate) protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reads := r.Method == http.MethodGet || r.Method == http.MethodHead
		switch {
		case g.proven(r), reads && !g.access.asks():
			next.ServeHTTP(w, r)
		case g.access.asks():
			w.Header().Set("WWW-Authenticate", `Bearer realm="rollcall admin"`)
			http.Error(w, "needs a bearer token or a client certificate", http.StatusUnauthorized)
		default:
			http.Error(w, "start this service with --admin-token-file or --admin-tls-client-ca to allow this", http.StatusForbidden)
		}
	})
}

// trusts reports whether details may be shown to whoever sent r.
func (g *gate) trusts(r *http.Request) bool { return !g.access.asks() || g.proven(r) }

// proven reports whether r came with a token or a client certificate. A token
// elsewhere than in the header, as in the query, is none: it would be logged on
// the way.
func (g *gate) proven(r *http.Request) bool {
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		return true
	}
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if g.access.TokenFile == "" || !strings.EqualFold(scheme, "Bearer") {
		return false
	}
	tokens, err := readTokens(g.access.TokenFile)
	if err != nil {
		if !g.bad.Swap(true) {
			g.logger.Warn("admin listener refuses tokens: the file cannot be read", "err", err)
		}
		return false
	}
	g.bad.Store(false)
	// Hashed, so that the time tells neither content nor length; and every
	// token is compared.
	hash, same := sha256.Sum256([]byte(strings.TrimSpace(given))), 0
	for _, token := range tokens {
		want := sha256.Sum256(token)
		same |= subtle.ConstantTimeCompare(hash[:], want[:])
	}
	return same == 1
}

// ownName reports whether the Host of a request names loopback.
func ownName(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return isLoopback(strings.Trim(host, "[]"))
}

// isLoopback reports whether host is a name of this host alone. Another name may
// lead to anywhere.
func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
