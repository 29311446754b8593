// Package kafkatest gives tests Apache Kafka itself: one broker for a test
// binary, in KRaft mode, from the jars that scripts/kafka.sh fetches, with a
// listener for each way of reaching one that internal/kafka knows.
//
// The broker ends with the test binary, and its files with it, also when the
// binary is killed.
package kafkatest

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/rollcall-platform/rollcall/internal/porttest"
)

// EnvBrokers names the environment variable with the brokers, host:port,… , of
// a Kafka to use instead of starting one. It serves Brokers alone.
const EnvBrokers = "ROLLCALL_TEST_KAFKA"

// version is the one that scripts/kafka.sh fetches.
const version = "4.1.0"

// readyTimeout is generous: beside other tests on two cores the broker takes
// several times its usual four seconds.
const readyTimeout = 90 * time.Second

// What the broker knows; a client of its SASL listener with a password is one
// of these.
const (
	User     = "rollcall"
	Password = "kafkatest secret with spaces" //nolint:gosec // of a broker that lives for one test
	Audience = "rollcall-kafka"               // that a token must be meant for
	// ReauthEvery is how long a connection with a bearer token lasts until the
	// broker wants a token again.
	ReauthEvery = 3 * time.Second
)

// Broker is a running Apache Kafka of one node.
type Broker struct {
	// Plain is the address without TLS and authentication.
	Plain string
	// MutualTLS is the address that asks for a client certificate of CA, and
	// takes nobody without.
	MutualTLS string
	// SASL is the address with TLS, without client certificates, that takes
	// PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER.
	SASL string
	// CA is the authority of the broker's certificate, and of its clients'.
	CA *Authority
	// CAFile holds its certificate.
	CAFile string
	// Tokens issues what OAUTHBEARER takes.
	Tokens *Issuer

	dir  string
	done chan struct{} // closed when the process has ended
}

// Brokers returns the address of a Kafka without TLS and authentication. It
// skips the test where none can be had.
func Brokers(tb testing.TB) []string {
	tb.Helper()
	if env := os.Getenv(EnvBrokers); env != "" {
		return strings.Split(env, ",")
	}
	return []string{New(tb).Plain}
}

// New returns the test binary's broker, and starts it the first time. It skips
// the test where Java or the jars are absent.
func New(tb testing.TB) *Broker {
	tb.Helper()
	once.Do(func() { shared, errStart = start(tb) })
	b, err := shared, errStart
	if missing := (*absentError)(nil); errors.As(err, &missing) {
		tb.Skipf("needs Apache Kafka: %v", missing)
	}
	if err != nil {
		tb.Fatalf("start Apache Kafka for the tests: %v", err)
	}
	return b
}

type absentError struct{ what string }

func (e *absentError) Error() string { return e.what }

var (
	once     sync.Once
	shared   *Broker
	errStart = errors.New("the first test that asked for it could not")
)

func start(tb testing.TB) (*Broker, error) {
	java, err := exec.LookPath("java")
	if err != nil {
		return nil, &absentError{"no java in PATH (Debian: apt-get install default-jre-headless maven), then run scripts/kafka.sh"}
	}
	jars, err := findJars()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "rollcall-kafkatest-")
	if err != nil {
		return nil, err
	}
	b, err := run(tb, java, jars, dir)
	if err != nil && (b == nil || b.done == nil) {
		_ = os.RemoveAll(dir) // else the sweeper does it
	}
	return b, err
}

// findJars looks for what scripts/kafka.sh fetches, from the directory of the
// test upward.
func findJars() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "scripts", "kafka.sh")); err == nil {
			jars := filepath.Join(dir, ".tools", "kafka", version)
			if _, err := os.Stat(jars); errors.Is(err, fs.ErrNotExist) {
				return "", &absentError{"no jars: run scripts/kafka.sh, which fetches them with mvn"}
			}
			return jars, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", &absentError{"scripts/kafka.sh is not above the test's directory"}
		}
		dir = up
	}
}

// run formats the log directory and starts the broker in dir.
func run(tb testing.TB, java, jars, dir string) (*Broker, error) {
	b := &Broker{dir: dir, CAFile: filepath.Join(dir, "ca.pem")}
	var err error
	if b.CA, err = NewAuthority("kafkatest"); err != nil {
		return nil, err
	}
	if err := os.WriteFile(b.CAFile, b.CA.PEM, 0o600); err != nil {
		return nil, err
	}
	if b.Tokens, err = newIssuer(dir); err != nil {
		return nil, err
	}
	b.Plain, b.MutualTLS, b.SASL = porttest.Addr(tb), porttest.Addr(tb), porttest.Addr(tb)
	conf, err := b.properties(porttest.Addr(tb))
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "server.properties")
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		return nil, err
	}
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails (crypto/rand)
	id[0] &= 0x7f        // the text must not begin with a dash: the tool would take it for an option
	jvm := []string{"-cp", jars + "/*", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"}
	format := exec.Command(java, slices.Concat(jvm, []string{"kafka.tools.StorageTool", "format", "--standalone",
		"-t", base64.RawURLEncoding.EncodeToString(id), "-c", path,
		"--add-scram", fmt.Sprintf("SCRAM-SHA-256=[name=%s,password=%s]", User, Password),
		"--add-scram", fmt.Sprintf("SCRAM-SHA-512=[name=%s,password=%s]", User, Password),
	})...)
	if out, err := format.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("format the log directory: %w: %s", err, out)
	}
	err = b.supervise(append([]string{java, "-Xmx512m", "-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=" + b.Tokens.jwksURL()},
		slices.Concat(jvm, []string{"kafka.Kafka", path})...))
	if err != nil {
		return nil, err
	}
	return b, b.awaitReady()
}

// supervise runs the broker under a shell that ends it, and removes its files,
// when this process has ended: the shell waits for the end of a pipe that only
// this process holds.
func (b *Broker) supervise(command []string) error {
	const script = `dir=$1; shift; exec 3<&0
"$@" </dev/null 3<&- >"$dir/log" 2>&1 & broker=$!
{ read -r _ <&3
  [ -e "$dir/ended" ] || kill -9 $broker
  while [ ! -e "$dir/ended" ]; do sleep 0.05; done
  rm -rf -- "$dir"
} & exec 3<&-
wait $broker
: >"$dir/ended"`
	cmd := exec.Command("/bin/sh", append([]string{"-c", script, "kafkatest", b.dir}, command...)...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is not for it: it ends with the tests
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	held = append(held, pipe)
	if err := cmd.Start(); err != nil {
		return err
	}
	b.done = make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(b.done)
	}()
	return nil
}

// held keeps pipes from finalizers, which would close them before the process ends.
var held []io.Closer

func (b *Broker) awaitReady() error {
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.Plain))
	if err != nil {
		return err
	}
	defer cl.Close()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		try, cancel := context.WithTimeout(ctx, 2*time.Second)
		req := kmsg.NewPtrMetadataRequest()
		resp, err := req.RequestWith(try, cl)
		cancel()
		if err == nil && len(resp.Brokers) > 0 {
			// The plain listener may be there before the others.
			if err = b.dialListeners(ctx); err == nil {
				return nil
			}
		}
		select {
		case <-b.done:
			return fmt.Errorf("it ended while it started: %s", b.Log())
		case <-ctx.Done():
			return fmt.Errorf("it does not take connections (last: %w): %s", err, b.Log())
		case <-tick.C:
		}
	}
}

// dialListeners reports the first listener that takes no connection.
func (b *Broker) dialListeners(ctx context.Context) error {
	for _, address := range []string{b.Plain, b.MutualTLS, b.SASL} {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		_ = conn.Close()
	}
	return nil
}

// Log is the end of what the broker has logged: warnings and errors.
func (b *Broker) Log() string {
	const most = 8 << 10
	out, err := os.ReadFile(filepath.Join(b.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(out[max(0, len(out)-most):])
}
