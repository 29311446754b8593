package main

import (
	"testing"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"
)

// A URL may name the primary and its replicas.
func TestDatabaseURLOfSeveralHosts(t *testing.T) {
	const url = "postgres://rollcall:secret@db-1:5432,db-2:5432/rollcall?sslmode=disable"
	var flags struct {
		Database databaseFlags `embed:""`
	}
	parser, err := kong.New(&flags)
	require.NoError(t, err)
	_, err = parser.Parse([]string{"--database-url=" + url})
	require.NoError(t, err)
	require.NoError(t, flags.Database.validate())
	got, err := flags.Database.url()
	require.NoError(t, err)
	require.Equal(t, url, got.Reveal())
	require.NotContains(t, got.String(), "secret")
}
