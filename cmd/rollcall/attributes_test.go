package main

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/device"
)

func TestAttributes(t *testing.T) {
	code, stdout, stderr := run(t, "attributes")
	require.Equal(t, cli.ExitOK, code, stderr)
	golden(t, "attributes.txt", stdout)
	code, stdout, stderr = run(t, "attributes", "-o", "json")
	require.Equal(t, cli.ExitOK, code, stderr)
	golden(t, "attributes.json", stdout)
	var page struct{ Attributes []struct{ Name string } }
	require.NoError(t, json.Unmarshal([]byte(stdout), &page))
	require.Len(t, page.Attributes, len(device.Vocabulary))
}
