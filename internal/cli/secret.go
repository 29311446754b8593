package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"reflect"
	"strings"

	"github.com/alecthomas/kong"
)

const (
	redacted       = "[redacted]"
	maxSecretBytes = 64 << 10
)

// SecretFile is a flag whose value is the path of a file that holds a secret:
// its content without the trailing line break. A flag whose environment name
// ends in _FILE may also be given as the secret itself, in the variable
// without that ending; the file goes first. A SecretFile prints as
// "[redacted]" whatever the verb.
type SecretFile struct{ value string }

// Reveal returns the secret, or "" when there is none.
func (s SecretFile) Reveal() string { return s.value }

// IsSet reports whether there is a secret.
func (s SecretFile) IsSet() bool { return s.value != "" }

// Format implements fmt.Formatter: no verb shows the secret.
func (s SecretFile) Format(w fmt.State, _ rune) { _, _ = fmt.Fprint(w, s.String()) }

// String says whether there is a secret, not which.
func (s SecretFile) String() string {
	if s.value == "" {
		return ""
	}
	return redacted
}

// LogValue implements slog.LogValuer.
func (s SecretFile) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText keeps the secret out of JSON, YAML and the like.
func (s SecretFile) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// literal is a secret that was given as such.
type literal string

// Decode implements kong.MapperValue.
func (s *SecretFile) Decode(ctx *kong.DecodeContext) error {
	token, err := ctx.Scan.PopValue("file")
	if err != nil {
		return err
	}
	if secret, ok := token.Value.(literal); ok {
		s.value = string(secret)
		return nil
	}
	path := fmt.Sprint(token.Value)
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.IsDir() || info.Size() > maxSecretBytes {
		return fmt.Errorf("%s is not a file of at most %d bytes", path, maxSecretBytes)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if s.value = strings.TrimRight(string(b), "\r\n"); s.value == "" {
		return fmt.Errorf("%s is empty", path)
	}
	return nil
}

// secretEnv gives a SecretFile its value from the environment variable that
// holds the secret itself.
type secretEnv struct{}

func (secretEnv) Validate(*kong.Application) error { return nil }

func (secretEnv) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	for _, env := range flag.Tag.Envs {
		if v := os.Getenv(env); v != "" {
			return nil, nil
		}
	}
	for _, env := range secretNames(flag) {
		if v := os.Getenv(env); v != "" {
			return literal(v), nil
		}
	}
	return nil, nil
}

// secretNames are the environment variables that hold the secret itself.
func secretNames(flag *kong.Flag) []string {
	if flag.Target.Type() != reflect.TypeFor[SecretFile]() {
		return nil
	}
	var names []string
	for _, env := range flag.Tag.Envs {
		if name, ok := strings.CutSuffix(env, "_FILE"); ok {
			names = append(names, name)
		}
	}
	return names
}

// EnvNames are the environment variables that set flag.
func EnvNames(flag *kong.Flag) []string {
	return append(append([]string(nil), flag.Tag.Envs...), secretNames(flag)...)
}

// inEnvironment reports whether the environment sets flag.
func inEnvironment(flag *kong.Flag) bool {
	for _, env := range EnvNames(flag) {
		if _, ok := os.LookupEnv(env); ok {
			return true
		}
	}
	return false
}

// URL is a flag that may hold a password, such as a database's URL. It prints
// without it, whatever the verb.
type URL struct{ raw string }

// NewURL is for programs that make the URL themselves.
func NewURL(raw string) URL { return URL{raw: raw} }

// Reveal returns the URL with its password.
func (u URL) Reveal() string { return u.raw }

// IsSet reports whether there is a URL.
func (u URL) IsSet() bool { return u.raw != "" }

// WithPassword returns u with the password of its user replaced. An empty
// password leaves u as it is.
func (u URL) WithPassword(password string) (URL, error) {
	if password == "" {
		return u, nil
	}
	p, err := u.parse()
	if err != nil {
		return URL{}, err
	}
	if p.User.Username() == "" {
		return URL{}, errors.New("a password without a user: the URL names none")
	}
	p.User = url.UserPassword(p.User.Username(), password)
	return URL{raw: p.String()}, nil
}

// Decode implements kong.MapperValue. It refuses nothing: kong would print
// what was refused. Validate does.
func (u *URL) Decode(ctx *kong.DecodeContext) error {
	return ctx.Scan.PopValueInto("url", &u.raw)
}

// Validate is called by kong when all values are known.
func (u URL) Validate() error {
	if u.raw == "" {
		return nil
	}
	_, err := u.parse()
	return err
}

func (u URL) parse() (*url.URL, error) {
	p, err := url.Parse(u.raw)
	if err != nil || p.Scheme == "" || p.Host == "" {
		return nil, errors.New("not a URL of the form scheme://user@host:port/path")
	}
	return p, nil
}

// String is the URL with its password replaced by "xxxxx".
func (u URL) String() string {
	if u.raw == "" {
		return ""
	}
	p, err := u.parse()
	if err != nil {
		return redacted
	}
	q := p.Query()
	for name := range q {
		if strings.Contains(strings.ToLower(name), "password") {
			q.Set(name, "xxxxx")
			p.RawQuery = q.Encode()
		}
	}
	return p.Redacted()
}

// Format implements fmt.Formatter: no verb shows the password.
func (u URL) Format(w fmt.State, _ rune) { _, _ = fmt.Fprint(w, u.String()) }

// LogValue implements slog.LogValuer.
func (u URL) LogValue() slog.Value { return slog.StringValue(u.String()) }

// MarshalText keeps the password out of JSON, YAML and the like.
func (u URL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }
