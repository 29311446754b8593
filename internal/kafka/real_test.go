package kafka_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/kafka"
	"github.com/rollcall-platform/rollcall/internal/kafka/kafkatest"
)

// desk writes the files that a client is configured with.
type desk struct {
	t      *testing.T
	dir    string
	broker *kafkatest.Broker
}

func newDesk(t *testing.T) desk { return desk{t, t.TempDir(), kafkatest.New(t)} }

func (d desk) path(name string) string { return filepath.Join(d.dir, name) }

// write replaces the file at once, as whoever renews one should.
func (d desk) write(name string, content []byte) string {
	d.t.Helper()
	require.NoError(d.t, os.WriteFile(d.path(name+".new"), content, 0o600))
	require.NoError(d.t, os.Rename(d.path(name+".new"), d.path(name)))
	return d.path(name)
}

// certificate issues one and writes it as name.pem and name.key.
func (d desk) certificate(ca *kafkatest.Authority, name string, leaf kafkatest.Leaf) (cert, key string) {
	d.t.Helper()
	certPEM, keyPEM, err := ca.Issue(leaf)
	require.NoError(d.t, err)
	return d.write(name+".pem", certPEM), d.write(name+".key", keyPEM)
}

func (d desk) token(name, audience string, until time.Time) string {
	d.t.Helper()
	token, err := d.broker.Tokens.Token("rollcall", audience, until)
	require.NoError(d.t, err)
	return d.write(name, []byte(token+"\n"))
}

func (d desk) client(o kafka.Options, more ...kgo.Opt) *kgo.Client {
	d.t.Helper()
	opts, err := o.Opts()
	require.NoError(d.t, err)
	cl, err := kgo.NewClient(append(opts, more...)...)
	require.NoError(d.t, err)
	d.t.Cleanup(cl.Close)
	return cl
}

// ask is one request and its answer.
func ask(t *testing.T, cl *kgo.Client) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := kadm.NewClient(cl).ListTopics(ctx)
	return err
}

// Every listener of Apache Kafka takes the right credentials, and what is said
// about wrong ones tells what to do.
func TestListenersOfApacheKafka(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	b, later := d.broker, time.Now().Add(time.Hour)
	stranger, err := kafkatest.NewAuthority("stranger")
	require.NoError(t, err)
	cert, key := d.certificate(b.CA, "good", kafkatest.Leaf{Name: "rollcall"})
	badCert, badKey := d.certificate(stranger, "bad", kafkatest.Leaf{Name: "rollcall"})
	oldCert, oldKey := d.certificate(b.CA, "old", kafkatest.Leaf{Name: "rollcall", Until: time.Now().Add(-time.Minute)})
	otherCA := d.write("other-ca.pem", stranger.PEM)
	token := d.token("token", kafkatest.Audience, later)
	otherToken := d.token("other-token", "another", later)
	oldToken := d.token("old-token", kafkatest.Audience, time.Now().Add(-time.Hour))
	forged := d.write("forged-token", append([]byte(readString(t, token)[:300]), "AAAA"...))

	sasl := func(mechanism, user, password, tokenFile string) kafka.Options {
		return kafka.Options{Brokers: []string{b.SASL}, CAFile: b.CAFile, SASLMechanism: mechanism, User: user, Password: password, TokenFile: tokenFile}
	}
	mtls := func(ca, cert, key string) kafka.Options {
		return kafka.Options{Brokers: []string{b.MutualTLS}, TLS: true, CAFile: ca, CertFile: cert, KeyFile: key}
	}
	const user, password = kafkatest.User, kafkatest.Password
	for name, c := range map[string]struct {
		o    kafka.Options
		want string // empty: it is taken
	}{
		"plain":                             {kafka.Options{Brokers: []string{b.Plain}}, ""},
		"plain, asked for TLS":              {kafka.Options{Brokers: []string{b.Plain}, TLS: true}, "does not want what is set"},
		"plain, asked for SASL":             {kafka.Options{Brokers: []string{b.Plain}, SASLMechanism: kafka.Plain, User: user}, "wants no SASL"},
		"mutual TLS":                        {mtls(b.CAFile, cert, key), ""},
		"mutual TLS, no client":             {mtls(b.CAFile, "", ""), "refuses the client certificate"},
		"mutual TLS, a stranger":            {mtls(b.CAFile, badCert, badKey), "refuses the client certificate"},
		"mutual TLS, expired":               {mtls(b.CAFile, oldCert, oldKey), "refuses the client certificate"},
		"mutual TLS, the system's roots":    {mtls("", cert, key), "set the CA file"},
		"mutual TLS, another authority":     {mtls(otherCA, cert, key), "set the CA file"},
		"mutual TLS, no TLS":                {kafka.Options{Brokers: []string{b.MutualTLS}}, "turn TLS on"},
		"PLAIN":                             {sasl(kafka.Plain, user, password, ""), ""},
		"PLAIN, wrong password":             {sasl(kafka.Plain, user, "wrong", ""), "refuses the SASL user or its password"},
		"PLAIN, no mechanism":               {sasl("", "", "", ""), "SASL that is not set here"},
		"SCRAM-SHA-256":                     {sasl(kafka.ScramSHA256, user, password, ""), ""},
		"SCRAM-SHA-256, wrong password":     {sasl(kafka.ScramSHA256, user, "wrong", ""), "refuses the SASL user or its password"},
		"SCRAM-SHA-512":                     {sasl(kafka.ScramSHA512, user, password, ""), ""},
		"SCRAM-SHA-512, wrong user":         {sasl(kafka.ScramSHA512, "nobody", password, ""), "refuses the SASL user or its password"},
		"OAUTHBEARER":                       {sasl(kafka.OAuthBearer, "", "", token), ""},
		"OAUTHBEARER, another's token":      {sasl(kafka.OAuthBearer, "", "", otherToken), "refuses the bearer token"},
		"OAUTHBEARER, expired token":        {sasl(kafka.OAuthBearer, "", "", oldToken), "refuses the bearer token"},
		"OAUTHBEARER, forged token":         {sasl(kafka.OAuthBearer, "", "", forged), "refuses the bearer token"},
		"an address that nobody has":        {kafka.Options{Brokers: []string{"127.0.0.1:1"}}, "nobody listens there"},
		"a name that nobody has (RFC 6761)": {kafka.Options{Brokers: []string{"kafka.invalid:9092"}}, "no such host"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl := d.client(c.o)
			if c.want == "" {
				require.NoError(t, ask(t, cl))
				return
			}
			err := ask(t, cl)
			require.Error(t, err)
			require.ErrorContains(t, kafka.Explain(err), c.want)
			require.ErrorIs(t, kafka.Explain(err), err)

			// The same in the log of a component that waits for its Kafka.
			var out bytes.Buffer
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			log := slog.New(slog.NewTextHandler(&stopAfterOne{&out, cancel}, nil))
			require.Error(t, kafka.Wait(ctx, cl, log))
			require.Contains(t, out.String(), c.want)
			require.NotContains(t, out.String(), password)
		})
	}
}

// stopAfterOne cancels when something was written.
type stopAfterOne struct {
	out  *bytes.Buffer
	stop context.CancelFunc
}

func (w *stopAfterOne) Write(p []byte) (int, error) {
	defer w.stop()
	return w.out.Write(p)
}

func readString(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(b)
}

// A client certificate that is renewed on disk is used from the next connection
// on, also by a client that has been refused with the one before.
func TestRenewedCertificateNeedsNoRestart(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	stranger, err := kafkatest.NewAuthority("stranger")
	require.NoError(t, err)
	cert, key := d.certificate(d.broker.CA, "client", kafkatest.Leaf{Name: "rollcall", Until: time.Now().Add(-time.Minute)})
	cl := d.client(kafka.Options{Brokers: []string{d.broker.MutualTLS}, CAFile: d.broker.CAFile, CertFile: cert, KeyFile: key},
		kgo.ConnIdleTimeout(100*time.Millisecond), kgo.MetadataMinAge(10*time.Millisecond))
	require.ErrorContains(t, kafka.Explain(ask(t, cl)), "refuses the client certificate", "it has expired")

	d.certificate(d.broker.CA, "client", kafkatest.Leaf{Name: "rollcall"})
	require.Eventually(t, func() bool { return ask(t, cl) == nil }, time.Minute, 50*time.Millisecond)

	d.certificate(stranger, "client", kafkatest.Leaf{Name: "rollcall"})
	var refused error
	require.Eventually(t, func() bool { refused = ask(t, cl); return refused != nil }, time.Minute, 250*time.Millisecond,
		"a new connection, once the idle ones have ended")
	require.ErrorContains(t, kafka.Explain(refused), "refuses the client certificate")
}

// A token that is renewed on disk is used at the next authentication, which
// the broker demands of an open connection too.
func TestRenewedTokenNeedsNoRestart(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	later := time.Now().Add(time.Hour)
	file := d.token("token", kafkatest.Audience, later)
	cl := d.client(kafka.Options{Brokers: []string{d.broker.SASL}, CAFile: d.broker.CAFile, SASLMechanism: kafka.OAuthBearer, TokenFile: file},
		kgo.MetadataMinAge(10*time.Millisecond))
	require.NoError(t, ask(t, cl))

	d.token("token", "another", later)
	var refused error
	require.Eventually(t, func() bool { refused = ask(t, cl); return refused != nil }, time.Minute, 100*time.Millisecond,
		"the broker asks again within the session's lifetime")
	require.ErrorContains(t, kafka.Explain(refused), "refuses the bearer token")

	d.token("token", kafkatest.Audience, later)
	require.Eventually(t, func() bool { return ask(t, cl) == nil }, time.Minute, 50*time.Millisecond)
}
