// Package mqtt says how an MQTT 5 broker is reached: which URLs are allowed,
// TLS, and who logs in. The RAE's binary and the cloud's both use it.
package mqtt

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
)

// Broker says how a broker is reached.
type Broker struct {
	// URL of the broker: mqtt://host:1883 or mqtts://host:8883; without a port,
	// these. Without TLS anybody on the way can read and forge everything, so
	// mqtt:// to another host than this one needs Insecure. Required.
	URL string
	// Insecure allows mqtt:// to other hosts.
	Insecure bool
	// TLS for mqtts:// (see TLSFiles). The server name defaults to the URL's
	// host. Default: the system's roots, TLS 1.2 or later, no client certificate.
	TLS *tls.Config
	// Username and Password are for brokers that do not take the identity from
	// the client certificate. Both or neither.
	Username, Password string
}

// Check returns why the broker cannot be reached so, or nil. It touches nothing,
// and the error holds no password.
func (b Broker) Check() error {
	_, _, err := b.Endpoint()
	return err
}

// Endpoint checks b and returns the broker's URL with its port, and the TLS
// configuration for it: nil where it is mqtt://.
func (b Broker) Endpoint() (*url.URL, *tls.Config, error) {
	if (b.Username == "") != (b.Password == "") {
		return nil, nil, errors.New("a user name of the broker needs a password, and a password a user name")
	}
	u, err := url.Parse(b.URL)
	if err != nil || u.Hostname() == "" {
		return nil, nil, errors.New("broker URL is not of the form mqtt://host:1883 or mqtts://host:8883")
	}
	if u.User != nil {
		return nil, nil, errors.New("broker URL holds a user: give the user name and a password file instead, command lines and logs are read by others")
	}
	if (u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.Fragment != "" {
		return nil, nil, fmt.Errorf("broker URL %s: nothing may follow host and port", u)
	}
	port := map[string]string{"mqtt": "1883", "mqtts": "8883"}[u.Scheme]
	switch {
	case port == "":
		return nil, nil, fmt.Errorf("broker URL %s: scheme %q is neither mqtt nor mqtts", u, u.Scheme)
	case u.Scheme == "mqtt" && !loopback(u.Hostname()) && !b.Insecure:
		return nil, nil, fmt.Errorf("broker URL %s: without TLS, anybody on the way can read and forge events; use mqtts://, or --insecure if that is acceptable", u)
	}
	if u.Port() != "" {
		port = u.Port()
	}
	endpoint := &url.URL{Scheme: u.Scheme, Host: net.JoinHostPort(u.Hostname(), port)}
	if u.Scheme == "mqtt" {
		return endpoint, nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if b.TLS != nil {
		config = b.TLS.Clone()
	}
	if config.ServerName == "" {
		config.ServerName = u.Hostname()
	}
	return endpoint, config, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// TLSFiles name PEM files. All may be empty.
type TLSFiles struct {
	CA   string // certificates that may sign the broker's; default: the system's
	Cert string // the client's certificate
	Key  string // its private key
}

// Load makes a client configuration: TLS 1.2 or later, and with Cert and Key a
// client certificate. The files are read once.
func (f TLSFiles) Load() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.CA != "" {
		pem, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, fmt.Errorf("CA file: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("CA file %s holds no PEM certificate", f.CA)
		}
	}
	if (f.Cert == "") != (f.Key == "") {
		return nil, errors.New("a client certificate needs its key, and a key its certificate")
	}
	if f.Cert == "" {
		return c, nil
	}
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("client certificate %s with key %s: %w", f.Cert, f.Key, err)
	}
	c.Certificates = []tls.Certificate{pair}
	return c, nil
}
