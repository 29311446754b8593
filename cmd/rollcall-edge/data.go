package main

import (
	"log/slog"
	"path/filepath"

	"github.com/rollcall-platform/rollcall/edge"
)

// dataFlags are the flags of every command that reads the registry.
type dataFlags struct {
	DataDir string `help:"Directory of the registry and of the running edge's control socket." default:"/var/lib/rollcall-edge" env:"ROLLCALL_DATA_DIR" placeholder:"DIR"`
}

// file is the registry's file.
func (f dataFlags) file() string { return filepath.Join(f.DataDir, edge.DatabaseFile) }

// discard is the logger of what runs before or without an edge.
var discard = slog.New(slog.DiscardHandler)
