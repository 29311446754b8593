package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/cmd/devstack/internal/temporal"
	"github.com/rollcall-platform/rollcall/internal/admin"
	"github.com/rollcall-platform/rollcall/internal/kafka/kafkatest"
	"github.com/rollcall-platform/rollcall/internal/porttest"
	"github.com/rollcall-platform/rollcall/internal/postgres/postgrestest"
)

// mutualTLS listens in front of the server at addr, takes only clients that
// have a certificate of ca, and returns its address: as a load balancer in
// front of Temporal does.
func mutualTLS(t *testing.T, ca *kafkatest.Authority, addr string) string {
	certPEM, keyPEM, err := ca.Issue(kafkatest.Leaf{Name: "temporal", Server: true})
	require.NoError(t, err)
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(ca.PEM))
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = in.Close() }()
				out, err := net.Dial("tcp", addr)
				if err != nil {
					return
				}
				defer func() { _ = out.Close() }()
				go func() { _, _ = io.Copy(out, in); _ = out.Close() }()
				_, _ = io.Copy(in, out)
			}()
		}
	}()
	return l.Addr().String()
}

// lines collects what a process writes.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// The settings of contrib/envconfig, which the Temporal CLI has too, get a
// worker through TLS with a client certificate to a real Temporal Server; what
// is said where they are wrong names Temporal.
func TestWorkerReachesTemporalOverTLS(t *testing.T) {
	database := postgrestest.New(t)
	rollcall := build(t, "../..", "./cmd/rollcall")
	server, err := temporal.Start(t.Context(), temporal.Options{
		DataDir: t.TempDir(), FrontendAddr: loopback(porttest.Port(t)), Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		require.NoError(t, server.Close(ctx))
	})
	migrate := exec.CommandContext(t.Context(), rollcall, "migrate", "up")
	migrate.Env = append(os.Environ(), "ROLLCALL_DATABASE_URL="+database)
	out, err := migrate.CombinedOutput()
	require.NoError(t, err, string(out))

	ca, err := kafkatest.NewAuthority("temporal")
	require.NoError(t, err)
	stranger, err := kafkatest.NewAuthority("stranger")
	require.NoError(t, err)
	addr := mutualTLS(t, ca, server.Addr())

	dir := t.TempDir()
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, content, 0o600))
		return path
	}
	settings := func(trusted, issuer *kafkatest.Authority, name string) []string {
		cert, key, err := issuer.Issue(kafkatest.Leaf{Name: "rollcall"})
		require.NoError(t, err)
		return []string{
			"TEMPORAL_TLS_CLIENT_CERT_PATH=" + write(name+".pem", cert),
			"TEMPORAL_TLS_CLIENT_KEY_PATH=" + write(name+".key", key),
			"TEMPORAL_TLS_SERVER_CA_CERT_PATH=" + write(name+"-ca.pem", trusted.PEM),
		}
	}
	for name, c := range map[string]struct {
		env  []string
		want string // of the log; empty: it gets ready
	}{
		"right":                 {settings(ca, ca, "right"), ""},
		"no TLS":                {nil, `dependency=temporal where="` + addr + ` namespace default"`},
		"a stranger's":          {settings(ca, stranger, "strange"), "tls: "},
		"no client certificate": {settings(ca, ca, "none")[2:], "tls: "},
		"another authority":     {settings(stranger, ca, "other"), "certificate signed by unknown authority"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log lines
			port := porttest.Port(t)
			p := &process{t: t, args: []string{rollcall, "worker"}, log: &log, env: append([]string{
				"ROLLCALL_DATABASE_URL=" + database, "TEMPORAL_ADDRESS=" + addr, "ROLLCALL_ADMIN_ADDR=" + loopback(port), "ROLLCALL_SNAPSHOT_RATE=0",
			}, c.env...)}
			p.start()
			defer p.kill()
			if c.want == "" {
				require.Eventually(t, func() bool { return admin.Client{Addr: loopback(port)}.Probe(t.Context(), "/readyz") == nil },
					patience, 50*time.Millisecond, "%s", &log)
				return
			}
			require.Eventually(t, func() bool {
				return strings.Contains(log.String(), "dependency=temporal") && strings.Contains(log.String(), c.want)
			}, patience, 50*time.Millisecond, "%s", &log)
			require.Eventually(t, func() bool {
				err := admin.Client{Addr: loopback(port)}.Probe(t.Context(), "/readyz")
				return err != nil && strings.Contains(err.Error(), "waiting for temporal")
			}, patience, 50*time.Millisecond)
		})
	}
}
