package uplink_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/edge/uplink"
	"github.com/rollcall-platform/rollcall/internal/mqtt"
	"github.com/rollcall-platform/rollcall/internal/porttest"
)

// authority signs certificates for a test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.sign("ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, nil)
	return a
}

// issue writes name.pem and name.key and returns their paths.
func (a *authority) issue(name string) (cert, key string) {
	a.sign(name, &x509.Certificate{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, a.key)
	return a.path(name + ".pem"), a.path(name + ".key")
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) sign(name string, c, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	c.SerialNumber, c.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	require.NoError(a.t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(a.t, err)
	require.NoError(a.t, os.WriteFile(a.path(name+".pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(a.t, os.WriteFile(a.path(name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600))
	parsed, err := x509.ParseCertificate(der)
	require.NoError(a.t, err)
	return parsed, key
}

// The broker takes the RAE's identity from its certificate, and lets it write
// under its own name only.
func TestMosquittoTakesTheIdentityFromTheCertificate(t *testing.T) {
	ca := newAuthority(t)
	cert, key := ca.issue("broker")
	acl := ca.path("acl")
	require.NoError(t, os.WriteFile(acl, []byte("pattern write rollcall/v1/%u/#\npattern read rollcall/v1/#\n"), 0o600))
	m := newMosquitto(t, "")
	tlsAddr := porttest.Addr(t)
	var port int
	_, err := fmt.Sscanf(tlsAddr, "127.0.0.1:%d", &port)
	require.NoError(t, err)
	text, err := os.ReadFile(m.config)
	require.NoError(t, err)
	text = fmt.Appendf([]byte("per_listener_settings true\n"), "%slistener %d 127.0.0.1\ncafile %s\ncertfile %s\nkeyfile %s\nrequire_certificate true\nuse_identity_as_username true\nacl_file %s\n",
		text, port, ca.path("ca.pem"), cert, key, acl)
	require.NoError(t, os.WriteFile(m.config, text, 0o600))
	m.start()
	got, box := &received{}, newOutbox()
	m.subscribe(t.Context(), got, nil)

	cert, key = ca.issue(rae)
	files := mqtt.TLSFiles{CA: ca.path("ca.pem"), Cert: cert, Key: key}
	config, err := uplink.LoadTLS(files, rae)
	require.NoError(t, err)
	require.Equal(t, uint16(tls.VersionTLS12), config.MinVersion)
	box.add(200)
	_, stop := start(t, uplink.Options{Broker: mqtt.Broker{URL: "mqtts://" + tlsAddr, TLS: config}, Outbox: box})
	eventually(t, "all delivered", func() bool { return got.len() == 200 && box.pending() == 0 })
	stop()

	_, err = uplink.LoadTLS(files, "RAE-2")
	require.ErrorContains(t, err, `is of "RAE-1", not of RAE "RAE-2"`)
	bare, err := uplink.LoadTLS(mqtt.TLSFiles{CA: files.CA}, rae)
	require.NoError(t, err)
	u, _ := start(t, uplink.Options{Broker: mqtt.Broker{URL: "mqtts://" + tlsAddr, TLS: bare}, Outbox: box})
	eventually(t, "says why", func() bool { return contains(u.Ready(), "certificate required") })
}

func TestOptionsAreChecked(t *testing.T) {
	o := uplink.Options{Broker: mqtt.Broker{URL: "mqtt://localhost"}, RAE: rae, Outbox: newOutbox(), Logger: slog.New(slog.DiscardHandler)}
	_, err := uplink.New(o)
	require.NoError(t, err)
	for want, change := range map[string]func(*uplink.Options){
		"are required": func(o *uplink.Options) { o.Outbox = nil },
		"RAE":          func(o *uplink.Options) { o.RAE = "no/serial" },
		"--insecure":   func(o *uplink.Options) { o.Broker.URL = "mqtt://broker.example" },
	} {
		o := o
		change(&o)
		_, err := uplink.New(o)
		require.ErrorContains(t, err, want)
	}
}
