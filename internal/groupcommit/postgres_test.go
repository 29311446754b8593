package groupcommit_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/groupcommit"
	"github.com/rollcall-platform/rollcall/internal/postgres/postgrestest"
	"github.com/rollcall-platform/rollcall/internal/store"
)

// PostgreSQL takes no NUL: the updates that have one are refused, alone, and all
// others are as they should be.
func TestOnPostgreSQL(t *testing.T) {
	url := postgrestest.New(t)
	_, err := store.Migrate(t.Context(), url, nil)
	require.NoError(t, err)
	db, err := store.Open(t.Context(), store.Options{URL: url})
	require.NoError(t, err)
	defer db.Close()
	c := committer(t, groupcommit.Options{Store: db, Sessions: 16, Timeout: time.Minute})

	const sessions, rounds = 64, 8
	at := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	bad := func(session int, seq int64) bool { return session%20 == 7 && seq == 4 }
	ids := make([]string, sessions)
	var wg sync.WaitGroup
	for i := range ids {
		ids[i] = uuid.NewString()
		wg.Go(func() {
			state := device.State{}
			for seq := int64(1); seq <= rounds; seq++ {
				value := fmt.Appendf(nil, `"of %d"`, seq)
				if bad(i, seq) {
					value = []byte(`"\u0000"`)
				}
				change := state.Apply(device.Fold{RAE: "RAE-1", Session: ids[i], Seqs: device.SeqSet{{From: seq, To: seq}}, First: at, Last: at,
					Attributes: map[string]device.Attribute{"a": {Value: value, Seq: seq, At: at}}})
				err := c.Apply(context.Background(), store.Update{
					RAE: "RAE-1", Session: ids[i], AsOf: state.AsOf, Seen: state.Seen, First: at, Last: at, Received: at, Write: change.Write,
					Events: 1, Records: 1, Positions: []device.Position{{Topic: device.KafkaEvents, Next: seq + 1}},
				})
				switch {
				case bad(i, seq):
					if !errors.Is(err, store.ErrRefused) {
						t.Errorf("session %d, seq %d: %v is no refusal", i, seq, err)
					}
				case err != nil:
					t.Errorf("session %d, seq %d: %v", i, seq, err)
				}
			}
		})
	}
	wg.Wait()
	closeNow(t, c)
	for i, id := range ids {
		stored, err := db.Load(t.Context(), id)
		state, positions := stored.State, stored.Positions
		require.NoError(t, err)
		require.True(t, stored.Found)
		require.EqualValues(t, rounds, state.AsOf, "session %d", i)
		require.Equal(t, fmt.Sprintf(`"of %d"`, rounds), string(state.Attributes["a"].Value))
		require.Equal(t, []device.Position{{Topic: device.KafkaEvents, Next: rounds + 1}}, positions)
		history, err := db.History(t.Context(), id, store.HistoryFilter{})
		require.NoError(t, err)
		want := rounds
		if i%20 == 7 {
			want-- // what was refused left nothing
		}
		require.Len(t, history.Changes, want, "session %d", i)
	}
}
