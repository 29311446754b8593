package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// SASL mechanisms that Options knows (RFC 4616, RFC 5802, RFC 7628).
const (
	Plain       = "PLAIN"
	ScramSHA256 = "SCRAM-SHA-256"
	ScramSHA512 = "SCRAM-SHA-512"
	OAuthBearer = "OAUTHBEARER"
)

// Options say how a Kafka cluster is reached and trusted. The zero value of
// everything but Brokers is a plain connection without authentication.
type Options struct {
	// Brokers are the addresses, host:port, to bootstrap from. Required.
	Brokers []string
	// ClientID is what the brokers' logs and quotas call this client.
	// Default "rollcall".
	ClientID string

	// TLS turns on TLS with the system's roots. Giving any of the files
	// below turns it on too.
	TLS bool
	// CAFile is a PEM bundle to trust instead of the system's roots.
	CAFile string
	// CertFile and KeyFile are the client certificate, PEM, for mutual TLS.
	// Both or neither. They are read for each connection, so that a renewed
	// certificate is used without a restart.
	CertFile, KeyFile string

	// SASLMechanism is one of the constants above, or empty for none. With
	// anything but SCRAM and without TLS the secret travels in the clear.
	SASLMechanism string
	// User and Password are for PLAIN and SCRAM.
	User, Password string
	// TokenFile holds the bearer token for OAUTHBEARER. It is read for each
	// authentication, so that whoever renews the token needs only the file.
	TokenFile string
}

// Opts validates o, reads its files once to prove that they can be read, and
// returns it as franz-go options.
func (o Options) Opts() ([]kgo.Opt, error) {
	if len(o.Brokers) == 0 {
		return nil, errors.New("kafka: no brokers given")
	}
	for _, b := range o.Brokers {
		if _, _, err := net.SplitHostPort(b); err != nil {
			return nil, fmt.Errorf("kafka: broker %q is not host:port: %w", b, err)
		}
	}
	id := o.ClientID
	if id == "" {
		id = "rollcall"
	}
	opts := []kgo.Opt{kgo.SeedBrokers(o.Brokers...), kgo.ClientID(id)}
	conf, err := o.tls()
	if err != nil {
		return nil, err
	}
	if conf != nil {
		opts = append(opts, kgo.DialTLSConfig(conf))
	}
	mechanism, err := o.sasl()
	if err != nil {
		return nil, err
	}
	if mechanism != nil {
		opts = append(opts, kgo.SASL(mechanism))
	}
	return opts, nil
}

// tls is nil where no TLS is asked for. The server name is the dialled host's.
func (o Options) tls() (*tls.Config, error) {
	if !o.TLS && o.CAFile == "" && o.CertFile == "" && o.KeyFile == "" {
		return nil, nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("kafka: CA file: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("kafka: CA file %s holds no PEM certificate", o.CAFile)
		}
	}
	if (o.CertFile == "") != (o.KeyFile == "") {
		return nil, errors.New("kafka: a client certificate needs both its file and its key's file")
	}
	if o.CertFile != "" {
		if _, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile); err != nil {
			return nil, fmt.Errorf("kafka: client certificate: %w", err)
		}
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			c, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
			return &c, err
		}
	}
	return conf, nil
}

func (o Options) sasl() (sasl.Mechanism, error) {
	needUser := []string{Plain, ScramSHA256, ScramSHA512}
	if slices.Contains(needUser, o.SASLMechanism) && o.User == "" {
		return nil, fmt.Errorf("kafka: SASL %s needs a user", o.SASLMechanism)
	}
	switch o.SASLMechanism {
	case "":
		if o.User != "" || o.TokenFile != "" {
			return nil, errors.New("kafka: a user or token file is given, but no SASL mechanism")
		}
		return nil, nil
	case Plain:
		return plain.Auth{User: o.User, Pass: o.Password}.AsMechanism(), nil
	case ScramSHA256:
		return scram.Auth{User: o.User, Pass: o.Password}.AsSha256Mechanism(), nil
	case ScramSHA512:
		return scram.Auth{User: o.User, Pass: o.Password}.AsSha512Mechanism(), nil
	case OAuthBearer:
		if _, err := o.token(); err != nil {
			return nil, err
		}
		return oauth.Oauth(func(context.Context) (oauth.Auth, error) {
			token, err := o.token()
			return oauth.Auth{Token: token}, err
		}), nil
	}
	return nil, fmt.Errorf("kafka: SASL mechanism %q is not one of %s", o.SASLMechanism,
		strings.Join([]string{Plain, ScramSHA256, ScramSHA512, OAuthBearer}, ", "))
}

func (o Options) token() (string, error) {
	b, err := os.ReadFile(o.TokenFile)
	if err != nil {
		return "", fmt.Errorf("kafka: token file: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if token == "" {
		return "", fmt.Errorf("kafka: token file %s is empty", o.TokenFile)
	}
	return token, nil
}
