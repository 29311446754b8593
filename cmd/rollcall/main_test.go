package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/device"
)

var update = flag.Bool("update", false, "write the golden files")

// patience only bounds a failure.
const patience = time.Minute

// within is what comes from c.
func within[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		require.Fail(t, "nothing has come", "in %s", patience)
	}
	return v
}

// The settings of whoever runs the tests are not the tests'.
func TestMain(m *testing.M) {
	if os.Getenv(pollerProcess) != "" {
		pollAsAProcess()
	}
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		ours := strings.HasPrefix(name, "ROLLCALL_") && !strings.HasPrefix(name, "ROLLCALL_TEST_")
		if ours || strings.HasPrefix(name, "TEMPORAL_") || name == "DATABASE_URL" {
			_ = os.Unsetenv(name)
		}
	}
	_ = os.Setenv("ROLLCALL_WAITING", "false") // most have neither Kafka nor Temporal
	os.Exit(m.Run())
}

func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	a := app()
	a.Stdout, a.Stderr = &out, &errs
	code = a.Run(t.Context(), args)
	return code, out.String(), errs.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err, "go test ./cmd/rollcall -update writes it")
	require.Equal(t, string(want), got, "go test ./cmd/rollcall -update accepts the change")
}

// What a person reads who asks for help: command lines, flags, environment, and
// an example of how to use them.
func TestHelp(t *testing.T) {
	a := app()
	k, err := a.Kong()
	require.NoError(t, err)
	var visit func(*kong.Node, string)
	visit = func(node *kong.Node, command string) {
		t.Run(command, func(t *testing.T) {
			code, stdout, stderr := run(t, append(strings.Fields(command), "--help")...)
			require.Equal(t, cli.ExitOK, code, stderr)
			golden(t, "help-"+strings.ReplaceAll(command, " ", "-")+".txt", stdout)
			if command != "" {
				require.Regexp(t, `(?m)^Examples?:\n\n    \S`, stdout)
			}
		})
		for _, child := range node.Children {
			if child.Type == kong.CommandNode {
				visit(child, strings.TrimSpace(command+" "+child.Name))
			}
		}
	}
	visit(k.Model.Node, "")
}

// Every flag says what it is for, and can be set by the environment where a
// container would want to.
func TestFlagsTeach(t *testing.T) {
	a := app()
	k, err := a.Kong()
	require.NoError(t, err)
	for _, leaf := range k.Model.Leaves(false) {
		service := strings.Contains("bridge poller worker retention", leaf.Name)
		for _, group := range leaf.AllFlags(false) {
			for _, f := range group {
				require.NotEmpty(t, f.Help, "%s --%s", leaf.FullPath(), f.Name)
				switch f.Name {
				case "help", "version", "check-config":
				default:
					require.True(t, !service || len(f.Tag.Envs) > 0, "%s --%s has no environment name", leaf.FullPath(), f.Name)
				}
				for _, env := range f.Tag.Envs {
					require.Regexp(t, `^(ROLLCALL|TEMPORAL)_[A-Z_]+$|^DATABASE_URL$`, env)
				}
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	const db = "--database-url=postgres://u:hunter2@localhost/d"
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"no command", nil, `expected one of "bridge", "poller", "worker", "migrate", "dlq", ... (see rollcall --help)`},
		{"misspelt command", []string{"pollr"}, `unexpected argument pollr, did you mean "poller"? (see rollcall --help)`},
		{"misspelt flag", []string{"poller", "--windw=3"}, `unknown flag --windw, did you mean "--window"? (see rollcall poller --help)`},
		{"no database", []string{"worker"}, `worker: no database: set --database-url or ROLLCALL_DATABASE_URL (see rollcall worker --help)`},
		{"not a database", []string{"worker", "--database-url=mysql://u:hunter2@h/d"}, `worker: --database-url: not a postgres:// URL (CockroachDB's begins with it too) (see rollcall worker --help)`},
		{"not a URL", []string{"worker", "--database-url=postgres:///hunter2"}, `--database-url: not a URL of the form scheme://user@host:port/path (see rollcall worker --help)`},
		{"a broker without port", []string{"poller", db, "--kafka-brokers=kafka"}, `poller: kafka: broker "kafka" is not host:port: address kafka: missing port in address (see rollcall poller --help)`},
		{"half a key pair", []string{"poller", db, "--kafka-tls-cert=x"}, `poller: kafka: a client certificate needs both its file and its key's file (see rollcall poller --help)`},
		{"user without mechanism", []string{"poller", db, "--kafka-username=x"}, `poller: kafka: a user or token file is given, but no SASL mechanism (see rollcall poller --help)`},
		{"absent authority", []string{"poller", db, "--kafka-tls-ca=absent.pem"}, `poller: kafka: CA file: open absent.pem: no such file or directory (see rollcall poller --help)`},
		{"window of none", []string{"poller", db, "--window=-1"}, `poller: --window-min, --window-max, --memory-mib and --partition-records must be at least 1, --window, --total-mib, --partition-mib and --fetch-mib not negative (see rollcall poller --help)`},
		{"window that is empty", []string{"poller", db, "--window-min=9", "--window-max=8"}, `poller: window from 9 to 8 is empty or not positive (see rollcall poller --help)`},
		{"memory that does not do", []string{"poller", db, "--memory-mib=128", "--total-mib=64"}, `poller: memory 128 MiB is less than what window, total and fetch bytes may come to, 196 MiB: raise it or lower them (see rollcall poller --help)`},
		{"class that does not parse", []string{"poller", db, "--class=[=1"}, `poller: --class: class "[": syntax error in pattern (see rollcall poller --help)`},
		{"duration without unit", []string{"poller", db, "--drain-timeout=20"}, `--drain-timeout: expected duration but got "20": time: missing unit in duration "20" (see rollcall poller --help)`},
		{"admin address", []string{"worker", db, "--admin-addr=9403"}, `worker: --admin-addr: "9403" is not host:port (see rollcall worker --help)`},
		{"temporal address", []string{"worker", db, "--temporal-address=temporal"}, `worker: --temporal-address: "temporal" is not host:port (see rollcall worker --help)`},
		{"absent profile", []string{"worker", db, "--temporal-profile=prod", "--temporal-config-file=testdata/temporal.toml"}, `worker: temporal settings (TEMPORAL_ variables, profile): unable to find profile prod in config data (see rollcall worker --help)`},
		{"password of nobody", []string{"worker", "--database-url=postgres://h/d", "--database-password-file=testdata/password"}, `worker: a password without a user: the URL names none (see rollcall worker --help)`},
		{"no broker", []string{"bridge"}, `bridge: no broker: set --mqtt-url or ROLLCALL_MQTT_URL (see rollcall bridge --help)`},
		{"MQTT in the clear", []string{"bridge", "--mqtt-url=mqtt://broker"}, `bridge: bridge: broker URL mqtt://broker: without TLS, anybody on the way can read and forge events; use mqtts://, or --insecure if that is acceptable (see rollcall bridge --help)`},
		{"shared subscription", []string{"bridge", "--mqtt-url=mqtts://broker", "--mqtt-filters=$share/g/rollcall/v1/#"}, `bridge: bridge: filter "$share/g/rollcall/v1/#" is a shared subscription, which loses the order within a topic: give each bridge filters of its own (see rollcall bridge --help)`},
		{"user without password", []string{"bridge", "--mqtt-url=mqtts://broker", "--mqtt-username=x"}, `bridge: --mqtt-username and --mqtt-password-file go together (see rollcall bridge --help)`},
		{"page size", []string{"device", "list", db, "--limit=5000"}, `device list: --limit must be from 1 to 1000 (see rollcall device list --help)`},
		{"cursor", []string{"device", "history", db, "x", "--before=here"}, `--before: not of the form SESSION/SEQ/NAME (see rollcall device history --help)`},
		{"test state", []string{"device", "set-state", db, "x", "in_test"}, `<state> must be one of "available","quarantined","maintenance" but got "in_test" (see rollcall device set-state --help)`},
		{"no lease", []string{"device", "reserve", db, "x"}, `missing flags: --for=DURATION (see rollcall device reserve --help)`},
		{"expiry", []string{"device", "request-snapshot", db, "x", "--expires=2h"}, `device request-snapshot: --wait must not be less than 0, --expires from 1s to 1h0m0s (see rollcall device request-snapshot --help)`},
		{"no action", []string{"device", "command", db, "x", "reboot"}, `device command: ACTION: "reboot" is none of ` + actionList() + ` (see rollcall device command --help)`},
		{"argument", []string{"device", "command", db, "x", "ping", `{"txt":"x"}`}, `device command: ping: unknown argument "txt": there are text (see rollcall device command --help)`},
		{"no arguments", []string{"device", "command", db, "x", "snapshot", `{"deep":true}`}, `device command: snapshot: unknown argument "deep": there are none (see rollcall device command --help)`},
		{"not JSON", []string{"device", "command", db, "x", "ping", `hello`}, `device command: ping: arguments are not a JSON object: hello (see rollcall device command --help)`},
		{"half a version", []string{"worker", db, "--build-id=v1"}, `worker: a deployment and a build ID go together: give both or neither (see rollcall worker --help)`},
		{"a deployment that is none", []string{"deployment", "roll", db, "--deployment=a.b", "--build-id=v1"}, `deployment roll: deployment "a.b": its name must hold neither . nor : anywhere (see rollcall deployment roll --help)`},
		{"a ramp that falls", []string{"deployment", "roll", db, "--deployment=d", "--build-id=v1", "--ramp=50,10"}, `deployment roll: --ramp: percentages above 0 and up to 100, each more than the one before (see rollcall deployment roll --help)`},
		{"a proof without database", []string{"deployment", "roll", "--deployment=d", "--build-id=v1"}, `deployment roll: no database: set --database-url or ROLLCALL_DATABASE_URL; or roll without proof: --no-prove (see rollcall deployment roll --help)`},
		{"two clocks", []string{"device", "history", db, "x", "--by=applied"}, `device history: --by is for --at (see rollcall device history --help)`},
		{"shorter than Kafka", []string{"retention", db, "--tombstones=3d"}, `retention: tombstones of 3d is less than the 7d that Kafka keeps records: a replay could need what has been deleted (see rollcall retention --help)`},
		{"days", []string{"retention", db, "--history=long"}, `--history: "long" is not a number of days such as 90d, 65535d at most, or a duration such as 36h (see rollcall retention --help)`},
		{"no time", []string{"device", "history", db, "x", "--at=nonsense"}, `--at: "nonsense" is not a time: give how long ago (2h, 3d or "2h ago"), a day (2026-11-21: its beginning, UTC), or a time as tables and JSON print it ("2026-11-21 09:00:00Z", 2026-11-21T09:00:00.5+01:00) (see rollcall device history --help)`},
		{"which batches", []string{"quarantine", "drop", db}, `quarantine drop: say which batches: ID …, a filter, or --all (see rollcall quarantine drop --help)`},
		{"no cause", []string{"quarantine", "list", db, "--cause=database,databse"}, `quarantine list: --cause: "databse" is none of payload, version, invalid, foreign, database; did you mean "database"? (see rollcall quarantine list --help)`},
		{"whose quarantine", []string{"quarantine", "replay", db, "--session=living-room-tv"}, `quarantine replay: --session: "living-room-tv" is not a UUID: rollcall device get DEVICE says which its session is (see rollcall quarantine replay --help)`},
		{"no days", []string{"retention", db, "--kafka-retention=0d"}, `--kafka-retention: "0d" is not a number of days such as 90d, 65535d at most, or a duration such as 36h (see rollcall retention --help)`},
		{"too long", []string{"device", "reserve", "tv", db, "--for=31d"}, `device reserve: --for must be from 1s to 30d (see rollcall device reserve --help)`},
		{"nobody", []string{"device", "reserve", "tv", db, "--for=1h", "--holder="}, `device reserve: --holder must be a name of 1 to 200 bytes (see rollcall device reserve --help)`},
		{"whose progress", []string{"session", "progress", "living-room-tv"}, `session progress: session "living-room-tv" is not a lower-case UUID: rollcall device get DEVICE says which its session is (see rollcall session progress --help)`},
		{"no reason", []string{"session", "close", "tv", db, "--reason= "}, `session close: --reason must say why: it is kept with the session (see rollcall session close --help)`},
		{"none at a time", []string{"verify", db, "--parallel=0"}, `verify: --parallel must be at least 1, --timeout and --repair-rate more than 0 (see rollcall verify --help)`},
		{"output", []string{"device", "list", db, "-o", "yaml"}, `--output must be one of "table","json" but got "yaml" (see rollcall device list --help)`},
		{"which device", []string{"device", "get", db}, `expected "<device>" (see rollcall device get --help)`},
		{"unknown key", []string{"poller", db, "--config=testdata/misspelt.yaml"}, `testdata/misspelt.yaml:3: unknown key "kafka-borkers"; did you mean "kafka-brokers"? (see rollcall poller --help)`},
		{"whose health", []string{"healthcheck"}, `missing flags: --admin-addr=HOST:PORT (see rollcall healthcheck --help)`},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, stdout, stderr := run(t, c.args...)
			require.Equal(t, "rollcall: "+c.want+"\n", stderr)
			require.Equal(t, cli.ExitUsage, code)
			require.Empty(t, stdout)
			require.NotContains(t, stderr, "hunter2")
		})
	}
}

// The example that operators start from holds only keys that exist.
func TestExampleConfiguration(t *testing.T) {
	example, err := os.ReadFile("../../deploy/rollcall.example.yaml")
	require.NoError(t, err)
	token, file := filepath.Join(t.TempDir(), "token"), filepath.Join(t.TempDir(), "rollcall.yaml")
	require.NoError(t, os.WriteFile(token, []byte("0123456789abcdef\n"), 0o600))
	const path = "/etc/rollcall/admin-token"
	require.Contains(t, string(example), "admin-token-file: "+path+"\n")
	require.NoError(t, os.WriteFile(file, bytes.ReplaceAll(example, []byte(path), []byte(token)), 0o600))
	for _, command := range []string{"bridge", "poller", "worker", "retention"} {
		code, stdout, stderr := run(t, command, "--config="+file, "--check-config")
		require.Equal(t, cli.ExitOK, code, stderr)
		require.NotContains(t, stdout, "by default", "an address that nobody has set")
	}
}

// actionList is the table's actions as an error lists them.
func actionList() string {
	var names []string
	for _, a := range device.Actions {
		names = append(names, string(a.Name))
	}
	return strings.Join(names, ", ")
}
