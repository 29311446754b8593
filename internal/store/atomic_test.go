package store_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/store"
)

// breakTable has the database answer every write of the table with the SQLSTATE.
func breakTable(t *testing.T, url, table, code string) (mend func()) {
	t.Helper()
	do := func(sql string) {
		conn, err := pgx.Connect(t.Context(), url)
		require.NoError(t, err)
		defer func() { _ = conn.Close(ctx) }()
		_, err = conn.Exec(t.Context(), sql)
		require.NoError(t, err, sql)
	}
	do(fmt.Sprintf(`CREATE FUNCTION broken() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'broken' USING ERRCODE = '%s'; END $$`, code))
	do(`CREATE TRIGGER broken BEFORE INSERT OR UPDATE ON ` + table + ` FOR EACH ROW EXECUTE FUNCTION broken()`)
	return func() { do(`DROP TRIGGER broken ON ` + table); do(`DROP FUNCTION broken`) }
}

// contents are all rows that an apply writes.
func contents(t *testing.T, url string) string {
	t.Helper()
	var all []string
	for _, table := range []string{"device_session", "device_attribute", "attribute_change", "ingest_position", "session_gap", "network_interface", "device_identity"} {
		all = append(all, table+query[string](t, url, `SELECT COALESCE(string_agg(x::TEXT, '; ' ORDER BY x::TEXT), '') FROM `+table+` x`))
	}
	return strings.Join(all, "\n")
}

// Attributes, the session's row and the ingest position are written by one
// transaction. A position that is committed before its attributes loses them in a
// crash; attributes that are committed before it are counted twice.
func TestAttributesAndPositionAreOneTransaction(t *testing.T) {
	for _, table := range []string{"device_session", "device_attribute", "attribute_change", "ingest_position", "network_interface"} {
		t.Run(table, func(t *testing.T) {
			s, url := open(t)
			f := newFeed(1)
			apply(t, s, f.update(f.opened(map[string]string{"a": `1`, "network.ipv4": `"192.168.1.7"`})))
			before := contents(t, url)
			u := f.update(f.delta(3, map[string]string{"a": `2`, "network.ipv4": `"192.168.1.8"`})) // seq 2 is missing
			mend := breakTable(t, url, table, "53100")
			require.Error(t, s.Apply(t.Context(), []store.Update{u}))
			require.Equal(t, before, contents(t, url))
			mend()
			apply(t, s, u)
			got, positions := load(t, s, f.id)
			sameState(t, f.state, got)
			require.Equal(t, u.Positions, positions)
		})
	}
}

// What is classified as a refusal is quarantined. So only a class of SQLSTATE that
// blames the values may be one: an outage must be waited out.
func TestOnlyTheClassesThatBlameTheValuesAreRefusals(t *testing.T) {
	s, url := open(t)
	f := newFeed(1)
	apply(t, s, f.update(f.opened(nil)))
	u := f.update(f.delta(2, map[string]string{"a": `1`}))
	for code, refused := range map[string]bool{
		"22003": true, "23514": true, "54000": true, // data, integrity, program limits
		"08006": false, "0A000": false, "25006": false, "28000": false, "34000": false, "42501": false,
		"53000": false, "53100": false, "53200": false, "53300": false, "53400": false, // disk full, out of memory, too many connections
		"55000": false, "57014": false, "57P01": false, "57P03": false, "58000": false, "58030": false, "XX000": false, "XX001": false,
	} {
		mend := breakTable(t, url, "device_attribute", code)
		err := s.Apply(t.Context(), []store.Update{u})
		require.Error(t, err, code)
		require.Equal(t, refused, errors.Is(err, store.ErrRefused), "%s: %v", code, err)
		mend()
	}
	apply(t, s, u)
}
