package doctest_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/doctest"
)

const page = "# A `page`, read\n" + `
See [there](other.md#part) and ![this](images/a.png), or ` + "`rollcall dlq list|show --all`" + `.

## Blocks

` + "```console" + `
$ export URL=$(cat .rollcall/url)
$ bin/rollcall device list \
    --state offline | grep "it's" # a comment
SESSION  MAC
$ make build
` + "```" + `

    make bench QUICK=1   # indented
    rollcall worker --build-id 'v 2' >log 2>&1 &

- A list.
    Its continuation is no code.
`

func TestParse(t *testing.T) {
	p := doctest.Parse(page)
	require.Equal(t, []string{"A `page`, read", "Blocks"}, p.Headings)
	require.Equal(t, "a-page-read", doctest.Anchor(p.Headings[0]))
	require.Equal(t, []string{"other.md#part", "images/a.png"}, p.Links)
	require.Len(t, p.Blocks, 2)
	require.Equal(t, "Blocks", p.Blocks[0].Section)
	require.Equal(t, 8, p.Blocks[0].Line)
	require.Equal(t, []doctest.Step{
		{Command: "export URL=$(cat .rollcall/url)\n"},
		{Command: "bin/rollcall device list \\\n    --state offline | grep \"it's\" # a comment\n", Output: "SESSION  MAC\n"},
		{Command: "make build\n"},
	}, p.Blocks[0].Steps())
	require.Equal(t, [][]string{
		{"cat", ".rollcall/url"},
		{"export", "URL=$(cat .rollcall/url)"},
		{"bin/rollcall", "device", "list", "--state", "offline"},
		{"grep", "it's"},
		{"make", "build"},
		{"make", "bench", "QUICK=1"},
		{"rollcall", "worker", "--build-id", "v 2"},
		{"rollcall", "dlq", "list", "--all"},
		{"rollcall", "dlq", "show", "--all"},
	}, p.Commands("rollcall"))
}
