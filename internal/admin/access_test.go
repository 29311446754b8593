package admin_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/admin"
	"github.com/rollcall-platform/rollcall/internal/kafka/kafkatest"
)

const token = "correct-horse-battery"

// write writes a file of the test and returns its path.
func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

// drains counts the drains that got through to the service.
type drains struct{ atomic.Int64 }

func (d *drains) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	d.Add(1)
	w.WriteHeader(http.StatusAccepted)
}

// withDrain runs a server as a poller has it.
func withDrain(t *testing.T, o admin.Options) (*admin.Server, *drains) {
	t.Helper()
	s, d := startWith(t, o), &drains{}
	s.Handle("POST /drain", d)
	s.AddCheck("database", func() error { return errors.New("database at db:5432 refuses connections") })
	return s, d
}

// send sends a request with these headers, "name: value".
func send(t *testing.T, c *http.Client, method, url string, headers ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	require.NoError(t, err)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			r.Host = value
		} else {
			r.Header.Set(name, value)
		}
	}
	res, err := c.Do(r)
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(body)
}

const (
	ok           = http.StatusOK
	accepted     = http.StatusAccepted
	unauthorized = http.StatusUnauthorized
	forbidden    = http.StatusForbidden
	misdirected  = http.StatusMisdirectedRequest
	notAllowed   = http.StatusMethodNotAllowed
	notReady     = http.StatusServiceUnavailable
)

// Who may do what, without and with a token, from a program and from a web page.
func TestWhoMayDoWhat(t *testing.T) {
	file := write(t, "token", token+"\n")
	bearer := "Authorization: Bearer " + token
	for _, c := range []struct {
		what, method, path  string
		headers             []string
		open, guarded, wide int // loopback without a token; loopback with one; every interface with one
	}{
		{"metrics", "GET", "/metrics", nil, ok, unauthorized, unauthorized},
		{"metrics with the token", "GET", "/metrics", []string{bearer}, ok, ok, ok},
		{"the scheme in other letters", "GET", "/metrics", []string{"Authorization: bearer " + token}, ok, ok, ok},
		{"a wrong token", "GET", "/metrics", []string{"Authorization: Bearer " + token + "x"}, ok, unauthorized, unauthorized},
		{"a part of the token", "GET", "/metrics", []string{"Authorization: Bearer " + token[:16]}, ok, unauthorized, unauthorized},
		{"an empty token", "GET", "/metrics", []string{"Authorization: Bearer "}, ok, unauthorized, unauthorized},
		{"another scheme", "GET", "/metrics", []string{"Authorization: Basic " + token}, ok, unauthorized, unauthorized},
		{"the token in the query", "GET", "/metrics?token=" + token + "&access_token=" + token, nil, ok, unauthorized, unauthorized},
		{"the token in a cookie", "GET", "/metrics", []string{"Cookie: token=" + token}, ok, unauthorized, unauthorized},
		{"profiles", "GET", "/debug/pprof/", nil, ok, unauthorized, unauthorized},
		{"profiles with the token", "GET", "/debug/pprof/goroutine?debug=1", []string{bearer}, ok, ok, ok},
		{"the command line", "GET", "/debug/pprof/cmdline", []string{bearer}, http.StatusNotFound, http.StatusNotFound, http.StatusNotFound},
		{"a drain", "POST", "/drain", nil, forbidden, unauthorized, unauthorized},
		{"a drain with the token", "POST", "/drain", []string{bearer}, forbidden, accepted, accepted},
		{"a drain with a wrong token", "POST", "/drain", []string{"Authorization: Bearer " + token[1:]}, forbidden, unauthorized, unauthorized},
		{"a drain by the query", "POST", "/drain?token=" + token, nil, forbidden, unauthorized, unauthorized},
		{"a drain by GET", "GET", "/drain", []string{bearer}, notAllowed, notAllowed, notAllowed},
		{"a drain by another method", "PUT", "/drain", []string{bearer}, notAllowed, notAllowed, notAllowed},
		{"a drain by override", "GET", "/drain", []string{bearer, "X-HTTP-Method-Override: POST"}, notAllowed, notAllowed, notAllowed},
		{"metrics by POST", "POST", "/metrics", nil, notAllowed, notAllowed, notAllowed},
		{"TRACE", "TRACE", "/metrics", []string{bearer}, notAllowed, notAllowed, notAllowed},
		{"a form on a web page", "POST", "/drain", []string{"Origin: https://evil.example", "Content-Type: text/plain"}, forbidden, forbidden, forbidden},
		{"a web page that has the token", "POST", "/drain", []string{"Origin: https://evil.example", bearer}, forbidden, forbidden, forbidden},
		{"a sandboxed web page", "GET", "/metrics", []string{"Origin: null"}, forbidden, forbidden, forbidden},
		{"a name that was rebound", "GET", "/metrics", []string{"Host: evil.example"}, misdirected, misdirected, unauthorized},
		{"a name that was rebound, with the port", "GET", "/readyz", []string{"Host: evil.example:9402"}, misdirected, misdirected, notReady},
		{"a name that begins as ours", "GET", "/metrics", []string{"Host: localhost.evil.example"}, misdirected, misdirected, unauthorized},
		{"an address that is not ours", "GET", "/metrics", []string{"Host: 192.0.2.1"}, misdirected, misdirected, unauthorized},
		{"a drain by a name that was rebound", "POST", "/drain", []string{"Host: evil.example", bearer}, misdirected, misdirected, accepted},
		{"localhost", "GET", "/metrics", []string{"Host: localhost:1234", bearer}, ok, ok, ok},
		{"IPv6", "GET", "/metrics", []string{"Host: [::1]:1234", bearer}, ok, ok, ok},
		{"a scrape by the service's name", "GET", "/metrics", []string{"Host: poller:9402", bearer}, misdirected, misdirected, ok},
		{"health", "GET", "/healthz", nil, ok, ok, ok},
		{"readiness", "GET", "/readyz", nil, notReady, notReady, notReady},
	} {
		for i, o := range []admin.Options{
			{Addr: "127.0.0.1:0", Pprof: true},
			{Addr: "127.0.0.1:0", Pprof: true, Access: admin.Access{TokenFile: file}},
			{Addr: "0.0.0.0:0", Pprof: true, Access: admin.Access{TokenFile: file}},
		} {
			t.Run(fmt.Sprintf("%s/%s %t", c.what, o.Addr, o.Access.TokenFile != ""), func(t *testing.T) {
				s, drained := withDrain(t, o)
				_, port, err := net.SplitHostPort(s.Addr())
				require.NoError(t, err)
				want := []int{c.open, c.guarded, c.wide}[i]
				code, body := send(t, http.DefaultClient, c.method, "http://127.0.0.1:"+port+c.path, c.headers...)
				require.Equal(t, want, code, body)
				require.EqualValues(t, map[bool]int{true: 1}[want == accepted], drained.Load())
				if code != ok {
					require.NotContains(t, body, "rollcall_test_total")
				}
			})
		}
	}
}

// Without proof /readyz and /healthz say no more than yes or no.
func TestDetailsNeedProof(t *testing.T) {
	s, _ := withDrain(t, admin.Options{Access: admin.Access{TokenFile: write(t, "token", token)}})
	s.AddLiveness("loop", func() error { return errors.New("has not turned for 1m0s") })
	code, body := get(t, s.URL()+"/readyz")
	require.Equal(t, notReady, code)
	require.JSONEq(t, `{"ready": false}`, body)
	_, body = get(t, s.URL()+"/healthz")
	require.Equal(t, "failing\n", body)
	_, body = send(t, http.DefaultClient, "GET", s.URL()+"/readyz", "Authorization: Bearer "+token)
	require.Contains(t, body, "refuses connections")
	_, body = send(t, http.DefaultClient, "GET", s.URL()+"/healthz", "Authorization: Bearer "+token)
	require.Equal(t, "loop: has not turned for 1m0s\n", body)

	err := admin.Client{Addr: s.Addr()}.Probe(t.Context(), "/readyz")
	require.ErrorContains(t, err, "503")
	require.NotContains(t, err.Error(), "refuses")
	cmd := admin.HealthcheckCmd{AdminAddr: s.Addr(), TokenFile: write(t, "same", token+"\n"), Timeout: time.Minute}
	require.ErrorContains(t, cmd.Run(t.Context()), "database at db:5432 refuses connections")
}

func TestTokenFileIsReadAgain(t *testing.T) {
	var logged bytes.Buffer
	file := write(t, "token", token+"\n")
	s := startWith(t, admin.Options{Access: admin.Access{TokenFile: file}, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	opens := func(token string) bool {
		code, _ := send(t, http.DefaultClient, "GET", s.URL()+"/metrics", "Authorization: Bearer "+token)
		return code == ok
	}
	const next = "staple-0123456789abcdef"
	require.True(t, opens(token))
	require.NoError(t, os.WriteFile(file, []byte(token+"\n"+next+"\n"), 0o600))
	require.True(t, opens(token) && opens(next), "while it is changed both open")
	require.NoError(t, os.WriteFile(file, []byte(next), 0o600))
	require.True(t, opens(next))
	require.False(t, opens(token))
	for _, content := range []string{"", "\n\n", "short\n", strings.Repeat("x", 1<<20)} {
		require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
		require.False(t, opens(next) || opens("") || opens(strings.TrimSpace(content)), "a file that is not right opens to nobody")
	}
	require.NoError(t, os.Remove(file))
	require.False(t, opens(next))
	require.Equal(t, 1, strings.Count(logged.String(), "admin listener refuses tokens"), "said once: %s", logged.String())
}

// What other hosts reach is refused before anything listens, unless somebody
// must prove who he is; and the error says what to do.
func TestOpenAddressesAreRefused(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.issue(t, kafkatest.Leaf{Name: "poller", Server: true})
	for _, addr := range []string{"0.0.0.0:9402", "[::]:9402", "192.0.2.7:9402", "[2001:db8::1]:9402", "poller:9402", "127.0.0.1.evil.example:9402", "[::ffff:192.0.2.7]:9402"} {
		err := admin.Options{Addr: addr}.Check()
		require.EqualError(t, err, `admin address "`+addr+`" can be reached from other hosts: set --admin-token-file to a file with a token, or --admin-tls-client-ca with --admin-tls-cert and --admin-tls-key, or --admin-addr to 127.0.0.1:9402`)
		_, err = admin.New(admin.Options{Addr: addr, Registry: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
		require.ErrorContains(t, err, "--admin-token-file")
		require.ErrorContains(t, admin.Options{Addr: addr, Access: admin.Access{Cert: cert, Key: key}}.Check(), "--admin-tls-client-ca", "TLS alone asks nobody who he is")
		require.NoError(t, admin.Options{Addr: addr, Access: admin.Access{TokenFile: write(t, "token", token)}}.Check())
		require.NoError(t, admin.Options{Addr: addr, Access: admin.Access{Cert: cert, Key: key, ClientCA: a.file}}.Check())
	}
	for _, addr := range []string{"", ":9402", "127.0.0.1:9402", "127.8.8.8:0", "[::1]:9402", "localhost:9402", "[::ffff:127.0.0.1]:9402"} {
		require.NoError(t, admin.Options{Addr: addr}.Check(), addr)
	}
	for want, access := range map[string]admin.Access{
		"--admin-token-file: open ":                   {TokenFile: "/nowhere/token"},
		"holds no token: make one with":               {TokenFile: write(t, "empty", "\n")},
		"less than 16 characters":                     {TokenFile: write(t, "short", "secret\n")},
		"--admin-tls-cert and --admin-tls-key":        {Cert: cert},
		"--admin-tls-client-ca needs":                 {ClientCA: a.file, TokenFile: write(t, "token", token)},
		"--admin-tls-cert: ":                          {Cert: key, Key: cert},
		"holds no certificate in PEM":                 {Cert: cert, Key: key, ClientCA: key},
		"--admin-tls-client-ca: open /nowhere/ca.pem": {Cert: cert, Key: key, ClientCA: "/nowhere/ca.pem"},
	} {
		err := admin.Options{Access: access}.Check()
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "secret")
	}
}

// authority issues the test's certificates, as files.
type authority struct {
	*kafkatest.Authority
	file string
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	a, err := kafkatest.NewAuthority("admin test")
	require.NoError(t, err)
	return authority{a, write(t, "ca.pem", string(a.PEM))}
}

func (a authority) issue(t *testing.T, leaf kafkatest.Leaf) (cert, key string) {
	t.Helper()
	c, k, err := a.Issue(leaf)
	require.NoError(t, err)
	return write(t, "cert.pem", string(c)), write(t, "key.pem", string(k))
}

// client trusts a, and shows the pair if there is one.
func (a authority) client(t *testing.T, cert, key string) *http.Client {
	t.Helper()
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	require.True(t, config.RootCAs.AppendCertsFromPEM(a.PEM))
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		require.NoError(t, err)
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
}

func TestClientCertificates(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	cert, key := a.issue(t, kafkatest.Leaf{Name: "poller", Server: true})
	s, drained := withDrain(t, admin.Options{Access: admin.Access{Cert: cert, Key: key, ClientCA: a.file}})
	require.True(t, strings.HasPrefix(s.URL(), "https://"))

	none := a.client(t, "", "")
	code, body := send(t, none, "GET", s.URL()+"/readyz")
	require.Equal(t, notReady, code, "a probe has no certificate")
	require.JSONEq(t, `{"ready": false}`, body)
	code, _ = send(t, none, "GET", s.URL()+"/metrics")
	require.Equal(t, unauthorized, code)
	code, _ = send(t, none, "POST", s.URL()+"/drain")
	require.Equal(t, unauthorized, code)

	clientCert, clientKey := a.issue(t, kafkatest.Leaf{Name: "prometheus"})
	known := a.client(t, clientCert, clientKey)
	code, body = send(t, known, "GET", s.URL()+"/metrics")
	require.Equal(t, ok, code, body)
	code, _ = send(t, known, "POST", s.URL()+"/drain", "Origin: https://evil.example")
	require.Equal(t, forbidden, code, "a browser shows its certificate to whoever has it ask")
	require.Zero(t, drained.Load())
	code, _ = send(t, known, "POST", s.URL()+"/drain")
	require.Equal(t, accepted, code)

	for what, leaf := range map[string]struct {
		of authority
		kafkatest.Leaf
	}{
		"another authority": {stranger, kafkatest.Leaf{Name: "prometheus"}},
		"expired":           {a, kafkatest.Leaf{Name: "prometheus", Until: time.Now().Add(-time.Minute)}},
		"a server's":        {a, kafkatest.Leaf{Name: "bridge", Server: true}},
	} {
		c, k := leaf.of.issue(t, leaf.Leaf)
		_, err := a.client(t, c, k).Get(s.URL() + "/metrics")
		require.Error(t, err, what)
	}
	code, _ = get(t, "http://"+s.Addr()+"/healthz")
	require.Equal(t, http.StatusBadRequest, code, "no plain HTTP beside TLS")
}

// The health check of a container has the listener's certificate, and takes no
// other for it.
func TestHealthcheckByTLS(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.issue(t, kafkatest.Leaf{Name: "of any name"})
	s := startWith(t, admin.Options{Access: admin.Access{Cert: cert, Key: key}})
	cmd := admin.HealthcheckCmd{AdminAddr: s.Addr(), Cert: cert, Timeout: time.Minute}
	require.NoError(t, cmd.Run(t.Context()))
	cmd.Cert, _ = a.issue(t, kafkatest.Leaf{Name: "of any name"})
	require.ErrorContains(t, cmd.Run(t.Context()), "the listener's certificate is not that of")
	cmd.Cert = key
	require.ErrorContains(t, cmd.Run(t.Context()), "is not that of")
	cmd.Cert = ""
	require.Error(t, cmd.Run(t.Context()))
}

// A certificate is renewed under a running service; a half-written one changes
// nothing.
func TestCertificateIsReadAgain(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.issue(t, kafkatest.Leaf{Name: "first", Server: true})
	s := startWith(t, admin.Options{Access: admin.Access{Cert: cert, Key: key}})
	name := func() string {
		res, err := a.client(t, "", "").Get(s.URL() + "/healthz")
		require.NoError(t, err)
		defer func() { _ = res.Body.Close() }()
		return res.TLS.PeerCertificates[0].Subject.CommonName
	}
	require.Equal(t, "first", name())
	c, k, err := a.Issue(kafkatest.Leaf{Name: "second", Server: true})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(cert, c, 0o600))
	require.Equal(t, "first", name(), "the key is not written yet")
	require.NoError(t, os.WriteFile(key, k, 0o600))
	require.Equal(t, "second", name())
}

// Slow and large requests end, a panic costs its request alone, and the service
// answers all the while.
func TestLimits(t *testing.T) {
	s := startWith(t, admin.Options{Access: admin.Access{TokenFile: write(t, "token", token)}})
	s.Handle("GET /panics", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("nil map") }))
	s.Handle("POST /reads", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		}
	}))
	answers := func() {
		t.Helper()
		code, body := get(t, s.URL()+"/healthz")
		require.Equal(t, ok, code, body)
	}

	// Slow loris: a header line at a time, for as long as the server lets it.
	const slow = 300
	ended := make(chan time.Duration, slow)
	for range slow {
		go func() {
			begun := time.Now()
			c, err := net.Dial("tcp", s.Addr())
			if err == nil {
				defer func() { _ = c.Close() }()
				_, err = io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n")
			}
			for err == nil && time.Since(begun) < time.Minute {
				_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
				if _, err = c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
					_, err = io.WriteString(c, "X-Slow: 1\r\n")
				}
			}
			ended <- time.Since(begun)
		}()
	}
	for range 20 {
		answers()
	}
	for range slow {
		require.Less(t, <-ended, 50*time.Second)
	}

	bearer := "Authorization: Bearer " + token
	code, _ := send(t, http.DefaultClient, "GET", s.URL()+"/metrics", bearer, "X-Large: "+strings.Repeat("x", 64<<10))
	require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, code)
	many := []string{bearer}
	for i := range 5000 {
		many = append(many, fmt.Sprintf("X-Many-%d: 1", i))
	}
	code, _ = send(t, http.DefaultClient, "GET", s.URL()+"/metrics", many...)
	require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, code)
	code, _ = send(t, http.DefaultClient, "GET", s.URL()+"/"+strings.Repeat("x", 64<<10))
	require.NotEqual(t, ok, code)

	for range 3 {
		r, err := http.NewRequestWithContext(t.Context(), "GET", s.URL()+"/panics", nil)
		require.NoError(t, err)
		r.Header.Set("Authorization", "Bearer "+token)
		_, err = http.DefaultClient.Do(r)
		require.ErrorIs(t, err, io.EOF)
		answers()
	}
	r, err := http.NewRequestWithContext(t.Context(), "POST", s.URL()+"/reads", strings.NewReader(strings.Repeat("x", 1<<20)))
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer "+token)
	if res, err := http.DefaultClient.Do(r); err == nil { // else the connection was cut while it sent
		require.Equal(t, http.StatusRequestEntityTooLarge, res.StatusCode)
		_ = res.Body.Close()
	}
	answers()
}
