package postgres

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Standby starts an asynchronous replica of s, with a data directory of its own
// that must not exist yet. It takes reads, and writes once it is promoted
// (pg_promote). Its role and password are those of s.
func (s *Server) Standby(ctx context.Context, opts Options) (*Server, error) {
	data := filepath.Join(opts.DataDir, "data")
	if err := os.MkdirAll(opts.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("postgres: make data directory: %w", err)
	}
	if err := os.Mkdir(data, 0o700); err != nil {
		return nil, fmt.Errorf("postgres: make data directory: %w", err)
	}
	if err := s.as.give(data); err != nil {
		return nil, fmt.Errorf("postgres: give the data directory: %w", err)
	}
	cmd, paths, err := s.command("pg_basebackup", data)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	cmd.Args = append(cmd.Args, "--pgdata="+paths[0], "--dbname="+s.url("postgres"), "--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast")
	if out, err := output(ctx, cmd); err != nil {
		return nil, fmt.Errorf("postgres: copy the primary: %w: %s", err, strings.TrimSpace(out))
	}
	if err := os.WriteFile(filepath.Join(opts.DataDir, "password"), []byte(s.password+"\n"), 0o600); err != nil {
		return nil, fmt.Errorf("postgres: write password: %w", err)
	}
	opts.BinDir = s.bin
	return Start(ctx, opts)
}
