package main

import (
	"bytes"
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// wrong counts the sessions whose rows are not what their device is: last seq,
// missing events, and every attribute with its value and seq. Rows of sessions
// that nobody made count too. The first few are told.
func (w *world) wrong(ctx context.Context, fleets ...*fleet) (int, error) {
	type stored struct {
		asOf       int64
		missing    string
		attributes map[string]device.Attribute
	}
	missing := `missing::TEXT`
	if w.temporal == nil {
		missing = `'[]'` // the plain consumer does not look for gaps
	}
	rows, err := w.pool.Query(ctx, `SELECT session_id, as_of_seq, `+missing+` FROM device_session`)
	if err != nil {
		return 0, err
	}
	found := map[uuid.UUID]*stored{}
	for rows.Next() {
		var id uuid.UUID
		s := &stored{attributes: map[string]device.Attribute{}}
		if err := rows.Scan(&id, &s.asOf, &s.missing); err != nil {
			return 0, err
		}
		found[id] = s
	}
	if rows.Err() != nil {
		return 0, rows.Err()
	}
	rows, err = w.pool.Query(ctx, `SELECT session_id, name, value::TEXT, seq FROM device_attribute WHERE value IS NOT NULL`)
	if err != nil {
		return 0, err
	}
	for rows.Next() {
		var id uuid.UUID
		var name, value string
		var seq int64
		if err := rows.Scan(&id, &name, &value, &seq); err != nil {
			return 0, err
		}
		if s := found[id]; s != nil {
			s.attributes[name] = device.Attribute{Value: []byte(value), Seq: seq}
		}
	}
	if rows.Err() != nil {
		return 0, rows.Err()
	}
	wrong := 0
	tell := func(session, format string, args ...any) {
		if wrong++; wrong <= 3 {
			w.b.say("%s: WRONG TABLES: session %s: %s", w.name, session, fmt.Sprintf(format, args...))
		}
	}
	made := 0
	for _, f := range fleets {
		for _, d := range f.duts {
			if d.seq == 0 {
				continue
			}
			made++
			s := found[uuid.MustParse(d.session)]
			switch {
			case s == nil:
				tell(d.session, "has no row; its last seq is %d", d.seq)
			case s.asOf != d.seq:
				tell(d.session, "is at seq %d, not %d", s.asOf, d.seq)
			case s.missing != "[]":
				tell(d.session, "lacks events: %s", s.missing)
			default:
				if name := differs(d.attributes, s.attributes); name != "" {
					tell(d.session, "attribute %s is %s of seq %d, not %s of seq %d", name,
						s.attributes[name].Value, s.attributes[name].Seq, d.attributes[name].Value, d.attributes[name].Seq)
				}
			}
		}
	}
	if len(found) > made {
		wrong += len(found) - made
		w.b.say("%s: WRONG TABLES: %d sessions have rows, %d were made", w.name, len(found), made)
	}
	return wrong, nil
}

// differs names an attribute in which model and rows differ. The values are
// strings: their JSON has one form.
func differs(model, rows map[string]device.Attribute) string {
	for name, a := range model {
		if b, ok := rows[name]; !ok || a.Seq != b.Seq || !bytes.Equal(a.Value, b.Value) {
			return name
		}
	}
	for name := range rows {
		if _, ok := model[name]; !ok {
			return name
		}
	}
	return ""
}
