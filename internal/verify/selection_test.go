package verify_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/store"
	"github.com/rollcall-platform/rollcall/internal/verify"
)

// rows are the database's sessions: the RAE of each.
type rows struct {
	open, closed map[string]string
	pages        int
}

func (r *rows) GetDevice(_ context.Context, ref string) (store.Device, error) {
	for closed, sessions := range []map[string]string{r.open, r.closed} {
		if rae, ok := sessions[ref]; ok {
			return store.Device{Summary: store.Summary{Session: ref, RAE: rae, Closed: int64(closed)}}, nil
		}
	}
	return store.Device{}, store.ErrNotFound
}

func (r *rows) OpenSessions(_ context.Context, raes []string, after string, limit int) ([]store.SessionOf, error) {
	r.pages++
	var out []store.SessionOf
	for session, rae := range r.open {
		if session > after && (len(raes) == 0 || slices.Contains(raes, rae)) {
			out = append(out, store.SessionOf{Session: session, RAE: rae})
		}
	}
	slices.SortFunc(out, func(a, b store.SessionOf) int { return slices.Compare([]byte(a.Session), []byte(b.Session)) })
	return out[:min(limit, len(out))], nil
}

func (r *rows) Known(_ context.Context, sessions []string) (map[string]device.SeqSet, error) {
	out := map[string]device.SeqSet{}
	for _, s := range sessions {
		if _, ok := r.open[s]; ok {
			out[s] = nil
		}
	}
	return out, nil
}

// directory is the workflows that run: one a page. They answer, or fail, by their
// session.
type directory struct {
	running []string
	states  map[string]verify.State
	fails   map[string]error
	asked   []string
}

func (d *directory) State(_ context.Context, session string) (verify.State, error) {
	d.asked = append(d.asked, session)
	return d.states[session], d.fails[session]
}

func (d *directory) Running(_ context.Context, page []byte) (sessions []string, next []byte, err error) {
	if len(page) < len(d.running) {
		return d.running[len(page) : len(page)+1], append(page, 0), nil
	}
	return nil, nil, nil
}

const (
	first  = "11111111-1111-4111-8111-111111111111"
	second = "22222222-2222-4222-8222-222222222222"
	third  = "33333333-3333-4333-8333-333333333333"
	fourth = "44444444-4444-4444-8444-444444444444"
	fifth  = "55555555-5555-4555-8555-555555555555"
)

// A session whose workflow runs and of which the database has no row is verified
// too, unless it has applied nothing yet.
func TestSelectOpenSessions(t *testing.T) {
	index := &rows{open: map[string]string{first: "RAE-1", second: "RAE-2"}}
	w := &directory{
		running: []string{first, third, fourth, fifth},
		states: map[string]verify.State{
			third:  {RAE: "RAE-3", AsOf: 7},
			fourth: {RAE: "RAE-1"}, // new: it has applied nothing
		},
		fails: map[string]error{fifth: errors.New("no worker")},
	}
	got, err := verify.Select(t.Context(), index, w, verify.Selection{})
	require.NoError(t, err)
	require.Equal(t, []verify.Session{{ID: first, RAE: "RAE-1"}, {ID: second, RAE: "RAE-2"}, {ID: third, RAE: "RAE-3"}, {ID: fifth}}, got,
		"one that cannot be asked is not known to be new")
	require.NotContains(t, w.asked, first, "the database has it: nobody needs to be asked")

	got, err = verify.Select(t.Context(), index, w, verify.Selection{RAEs: []string{"RAE-1", "RAE-3"}})
	require.NoError(t, err)
	require.Equal(t, []verify.Session{{ID: first, RAE: "RAE-1"}, {ID: third, RAE: "RAE-3"}}, got)

	w.fails[third] = verify.ErrGone
	got, err = verify.Select(t.Context(), index, w, verify.Selection{RAEs: []string{"RAE-3"}})
	require.ErrorIs(t, err, verify.ErrNoSession)
	require.EqualError(t, err, `no open session to verify on RAE ["RAE-3"]`)
	require.Empty(t, got)
}

func TestSelectReadsAllPages(t *testing.T) {
	index := &rows{open: map[string]string{}}
	for n := range 2*store.MaxLimit + 1 {
		index.open[device.WorkflowID(string(rune('a'+n%26)))+string(rune(n))] = "RAE-1"
	}
	got, err := verify.Select(t.Context(), index, &directory{}, verify.Selection{})
	require.NoError(t, err)
	require.Len(t, got, len(index.open))
	require.Equal(t, 3, index.pages)
}

func TestSelectNamedSessions(t *testing.T) {
	index := &rows{open: map[string]string{first: "RAE-1", second: "RAE-2"}, closed: map[string]string{third: "RAE-1"}}
	w := &directory{running: []string{fourth}, states: map[string]verify.State{fourth: {AsOf: 1}}}
	got, err := verify.Select(t.Context(), index, w, verify.Selection{Devices: []string{third, second, first}, RAEs: []string{"RAE-1"}})
	require.NoError(t, err)
	require.Equal(t, []verify.Session{{ID: third, RAE: "RAE-1", Closed: true}, {ID: first, RAE: "RAE-1"}}, got)
	_, err = verify.Select(t.Context(), index, w, verify.Selection{Devices: []string{"toaster"}})
	require.ErrorIs(t, err, store.ErrNotFound)
	require.Empty(t, w.asked, "only what was named")
}
