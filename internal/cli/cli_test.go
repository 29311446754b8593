package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/cli"
)

type serve struct {
	Port     int            `help:"Port." default:"1" env:"TEST_PORT"`
	Every    time.Duration  `help:"Interval." default:"1s"`
	Brokers  []string       `help:"Brokers." default:"localhost:9092" env:"TEST_BROKERS"`
	Password cli.SecretFile `help:"Password." name:"password-file" env:"TEST_PASSWORD_FILE"`
	Database cli.URL        `help:"Database." name:"database-url" env:"TEST_DATABASE_URL"`
}

func (s *serve) Run(ctx context.Context, env cli.Env) error {
	env.Logger.Debug("serving", "database", s.Database, "password", s.Password)
	switch s.Port {
	case 13:
		return errors.New("connect to postgres://u:hunter2@h/db:\nrefused")
	case 44:
		return cli.NotFoundf("device %s does not exist", "x")
	case 99:
		<-ctx.Done()
		return fmt.Errorf("serve: %w", ctx.Err())
	}
	_, err := fmt.Fprintf(env.Stdout, "%d %s %s %q %s\n", s.Port, s.Every, strings.Join(s.Brokers, "+"), s.Password.Reveal(), s.Database.Reveal())
	return err
}

type list struct {
	Limit int `help:"Limit."`
}

func (*list) Run() error { return nil }

type grammar struct {
	cli.Flags
	Serve serve `cmd:"" help:"Serve."`
	Other struct {
		List list `cmd:"" help:"List."`
	} `cmd:"" help:"Other."`
}

func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	app := cli.App{Name: "test", Description: "A test.", Grammar: &grammar{}, Stdout: &out, Stderr: &errs}
	code = app.Run(t.Context(), args)
	return code, out.String(), errs.String()
}

func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rollcall.yaml")
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

// A setting comes from the flag, else the environment, else the file (the
// command's own part first), else the default.
func TestOrderOfSources(t *testing.T) {
	config := file(t, "port: 2\nevery: 3s\nbrokers: [a:1, b:2]\nserve:\n  port: 3\nother:\n  list:\n    limit: 7\n")
	for _, c := range []struct {
		name, env string
		args      []string
		want      string
	}{
		{"default", "", []string{"serve"}, `1 1s localhost:9092 "" ` + "\n"},
		{"file", "", []string{"serve", "--config", config}, `3 3s a:1+b:2 "" ` + "\n"},
		{"environment before file", "4", []string{"serve", "--config", config}, `4 3s a:1+b:2 "" ` + "\n"},
		{"flag before environment", "4", []string{"serve", "--config", config, "--port=5", "--brokers=c:3"}, `5 3s c:3 "" ` + "\n"},
		{"flags before the command", "", []string{"--config", config, "serve"}, `3 3s a:1+b:2 "" ` + "\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.env != "" {
				t.Setenv("TEST_PORT", c.env)
			}
			code, stdout, stderr := run(t, c.args...)
			require.Equal(t, "", stderr)
			require.Equal(t, cli.ExitOK, code)
			require.Equal(t, c.want, stdout)
		})
	}
	t.Run("the file named by the environment", func(t *testing.T) {
		t.Setenv("ROLLCALL_CONFIG", config)
		_, stdout, stderr := run(t, "serve")
		require.Equal(t, "3 3s a:1+b:2 \"\" \n", stdout, stderr)
	})
}

func TestRefusedSettings(t *testing.T) {
	for _, c := range []struct{ name, config, want string }{
		{"unknown key", "brokers: [a:1]\nbroker: b\n", `:2: unknown key "broker"; did you mean "brokers"?`},
		{"unknown key of a command", "serve:\n  zzzzzzzz: 1\n", `:2: unknown key "zzzzzzzz"`},
		{"a key of another command", "serve:\n  limit: 1\n", `:2: unknown key "limit"`},
		{"a key twice", "port: 1\nport: 2\n", `key "port" comes twice`},
		{"no value", "port:\n", `:1: key "port": has no value`},
		{"a mapping for a value", "port: {a: 1}\n", `:1: key "port": is a mapping, not a value`},
		{"a nested list", "brokers: [[a]]\n", `key "brokers": is a list of something else`},
		{"not YAML", "port: [", "yaml: line 1"},
		{"not a mapping", "- port\n", ":1: not a mapping of flag names"},
		{"two documents", "port: 1\n---\nport: 2\n", "more than one YAML document"},
		{"a wrong value", "port: many\n", "--port: expected"},
		{"help", "help: true\n", `unknown key "help"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, _, stderr := run(t, "serve", "--config", file(t, c.config))
			require.Equal(t, cli.ExitUsage, code, stderr)
			require.Contains(t, stderr, c.want)
			require.Equal(t, 1, strings.Count(stderr, "\n"), "one line: %s", stderr)
			require.Contains(t, stderr, "(see test serve --help)")
		})
	}
	code, _, stderr := run(t, "serve", "--config", "absent.yaml")
	require.Equal(t, cli.ExitUsage, code)
	require.Contains(t, stderr, "--config: open absent.yaml: no such file")
	code, stdout, stderr := run(t, "serve", "--config", file(t, ""))
	require.Equal(t, cli.ExitOK, code, stderr)
	require.NotEmpty(t, stdout, "an empty file is no error")
}

func TestSecrets(t *testing.T) {
	secret := file(t, "s3cret\n")
	want := `1 1s localhost:9092 "s3cret" ` + "\n"

	_, stdout, _ := run(t, "serve", "--password-file", secret)
	require.Equal(t, want, stdout)

	t.Setenv("TEST_PASSWORD", "s3cret")
	_, stdout, _ = run(t, "serve")
	require.Equal(t, want, stdout, "the secret itself, from the variable without _FILE")

	t.Setenv("TEST_PASSWORD", "other")
	t.Setenv("TEST_PASSWORD_FILE", secret)
	_, stdout, _ = run(t, "serve")
	require.Equal(t, want, stdout, "the file goes first")

	_, _, stderr := run(t, "serve", "--log-level=debug", "--database-url=postgres://u:hunter2@h/db?sslpassword=hunter2")
	require.Contains(t, stderr, "password=[redacted]")
	require.Contains(t, stderr, "u:xxxxx@h/db")
	require.NotContains(t, stderr, "hunter2")
	require.NotContains(t, stderr, "s3cret")

	for _, c := range []struct{ path, want string }{
		{"absent", "stat absent"}, {file(t, "\n"), "is empty"}, {t.TempDir(), "is not a file"},
	} {
		code, _, stderr := run(t, "serve", "--password-file", c.path)
		require.Equal(t, cli.ExitUsage, code)
		require.Contains(t, stderr, c.want)
	}
}

// No way of printing shows a password.
func TestRedaction(t *testing.T) {
	u := cli.NewURL("postgres://rollcall:hunter2@db:26257/rollcall?sslmode=verify-full")
	bad := cli.NewURL("://hunter2")
	b, err := json.Marshal(struct{ U, B cli.URL }{u, bad})
	require.NoError(t, err)
	for _, text := range []string{
		u.String(), bad.String(), fmt.Sprintf("%v %+v %#v %s %q %x", u, u, u, u, u, u), fmt.Sprint(struct{ U *cli.URL }{&u}.U, bad), string(b),
		cli.OneLine(errors.New("dial postgres://rollcall:hunter2@db: no")),
	} {
		require.NotContains(t, text, "hunter2")
	}
	require.Equal(t, "postgres://rollcall:xxxxx@db:26257/rollcall?sslmode=verify-full", u.String())
	require.Equal(t, "one; two \ufffd[2Jthree", cli.OneLine(errors.New("one\r\n two\t\x1b[2Jthree\n")), "an error does not control the terminal")

	with, err := cli.NewURL("postgres://rollcall@db/x").WithPassword("p@/:w")
	require.NoError(t, err)
	require.Equal(t, "postgres://rollcall:p%40%2F%3Aw@db/x", with.Reveal())
	_, err = cli.NewURL("postgres://db/x").WithPassword("p")
	require.ErrorContains(t, err, "a password without a user")

	code, _, stderr := run(t, "serve", "--database-url=rollcall:hunter2")
	require.Equal(t, cli.ExitUsage, code)
	require.Contains(t, stderr, "--database-url: not a URL of the form")
	require.NotContains(t, stderr, "hunter2")
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		args   []string
		code   int
		stderr string
	}{
		{[]string{"serve", "--port=13"}, cli.ExitFailed, "test: connect to postgres://u:xxxxx@h/db: refused\n"},
		{[]string{"serve", "--port=44"}, cli.ExitNotFound, "test: device x does not exist\n"},
		{[]string{"serve", "--prot=44"}, cli.ExitUsage, "test: unknown flag --prot, did you mean \"--port\"? (see test serve --help)\n"},
		{[]string{"sevre"}, cli.ExitUsage, "test: unexpected argument sevre, did you mean \"serve\"? (see test --help)\n"},
		{[]string{"serve", "--log-level=loud"}, cli.ExitUsage, `test: --log-level must be one of "debug","info","warn","error" but got "loud" (see test serve --help)` + "\n"},
	} {
		code, _, stderr := run(t, c.args...)
		require.Equal(t, c.code, code, c.args)
		require.Equal(t, c.stderr, stderr)
	}
	code, stdout, _ := run(t, "--version")
	require.Equal(t, cli.ExitOK, code)
	require.Contains(t, stdout, "test ")
	code, stdout, _ = run(t, "serve", "--help")
	require.Equal(t, cli.ExitOK, code)
	require.Contains(t, stdout, "$TEST_PASSWORD_FILE, $TEST_PASSWORD")
}

func TestCheckConfig(t *testing.T) {
	code, stdout, stderr := run(t, "serve", "--port=13", "--check-config")
	require.Equal(t, cli.ExitOK, code, stderr)
	require.Equal(t, "test serve: settings are valid\n", stdout, "it did not run")
	t.Setenv("ROLLCALL_LOG_LEVLE", "debug")
	code, _, stderr = run(t, "serve", "--check-config")
	require.Equal(t, cli.ExitUsage, code)
	require.Equal(t, "test: ROLLCALL_LOG_LEVLE is in the environment, and nothing reads it; did you mean \"ROLLCALL_LOG_LEVEL\"?\n", stderr)
}

func TestStoppedBySignalIsDone(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out bytes.Buffer
	app := cli.App{Name: "test", Description: "A test.", Grammar: &grammar{}, Stdout: &out, Stderr: &out}
	require.Equal(t, cli.ExitOK, app.Run(ctx, []string{"serve", "--port=99"}), out.String())
}

func FuzzConfig(f *testing.F) {
	f.Add("port: 2\nserve:\n  port: 3\n")
	f.Add("a: &a [*a]")
	f.Add("? {a: b}\n: c")
	f.Fuzz(func(t *testing.T, content string) {
		var out bytes.Buffer
		path := filepath.Join(t.TempDir(), "c.yaml")
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		app := cli.App{Name: "test", Description: "A test.", Grammar: &grammar{}, Stdout: &out, Stderr: &out}
		require.Contains(t, []int{cli.ExitOK, cli.ExitUsage}, app.Run(t.Context(), []string{"other", "list", "--config", path}), out.String())
	})
}
