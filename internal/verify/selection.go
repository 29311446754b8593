package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/store"
)

// ErrNoSession is wrapped by the error of a Selection that holds none.
var ErrNoSession = errors.New("no open session to verify")

// Selection says which sessions to verify. Its zero value is all that are open.
type Selection struct {
	// Devices are references as store.GetDevice takes them: the sessions that
	// they name, open or closed, or the current ones of the devices. None: all
	// open sessions.
	Devices []string
	// RAEs are serials; with some, only sessions on these are selected.
	RAEs []string
}

// Index is what package store knows of all sessions.
type Index interface {
	GetDevice(ctx context.Context, ref string) (store.Device, error)
	OpenSessions(ctx context.Context, raes []string, after string, limit int) ([]store.SessionOf, error)
	Known(ctx context.Context, sessions []string) (map[string]device.SeqSet, error)
}

// Directory is the Workflows that can be listed.
type Directory interface {
	Workflows
	// Running returns a page of the sessions whose workflow runs, and the next
	// page; it is empty behind the last. The first is nil.
	Running(ctx context.Context, page []byte) (sessions []string, next []byte, err error)
}

// Select returns the sessions to verify: those that are named, or those that
// are open in the database and those that only their workflow knows. Errors are
// the store's, the Temporal server's, or wrap ErrNoSession.
func Select(ctx context.Context, index Index, w Directory, selection Selection) ([]Session, error) {
	var sessions []Session
	var err error
	if len(selection.Devices) > 0 {
		sessions, err = named(ctx, index, selection)
	} else {
		sessions, err = open(ctx, index, w, selection.RAEs)
	}
	if err == nil && len(sessions) == 0 {
		err = ErrNoSession
		if len(selection.RAEs) > 0 {
			err = fmt.Errorf("%w on RAE %q", ErrNoSession, selection.RAEs)
		}
	}
	return sessions, err
}

// takes reports whether sessions on the RAE are selected.
func takes(raes []string, rae string) bool { return len(raes) == 0 || slices.Contains(raes, rae) }

func named(ctx context.Context, index Index, selection Selection) ([]Session, error) {
	var out []Session
	for _, ref := range selection.Devices {
		d, err := index.GetDevice(ctx, ref)
		if err != nil {
			return nil, err
		}
		if takes(selection.RAEs, d.RAE) {
			out = append(out, Session{ID: d.Session, RAE: d.RAE, Closed: d.Closed > 0})
		}
	}
	return out, nil
}

func open(ctx context.Context, index Index, w Directory, raes []string) ([]Session, error) {
	var out []Session
	for after, more := "", true; more; {
		page, err := index.OpenSessions(ctx, raes, after, store.MaxLimit)
		if err != nil {
			return nil, err
		}
		for _, s := range page {
			out, after = append(out, Session{ID: s.Session, RAE: s.RAE}), s.Session
		}
		more = len(page) == store.MaxLimit
	}
	rest, err := withoutRow(ctx, index, w, raes)
	return append(out, rest...), err
}

// withoutRow are the sessions whose workflow runs and has applied something,
// and of which the database has no row: they have drifted.
func withoutRow(ctx context.Context, index Index, w Directory, raes []string) ([]Session, error) {
	var out []Session
	for page, more := []byte(nil), true; more; more = len(page) > 0 {
		running, next, err := w.Running(ctx, page)
		if err != nil {
			return nil, err
		}
		page = next
		known, err := index.Known(ctx, running)
		if err != nil {
			return nil, err
		}
		for _, id := range running {
			if _, hasRow := known[id]; !hasRow {
				out = append(out, appliedSession(ctx, w, id, raes)...)
			}
		}
	}
	return out, nil
}

// appliedSession is the session if its workflow has applied an event and it is on one of
// raes. One that cannot be asked is not known to be new, and is selected where
// any RAE is.
func appliedSession(ctx context.Context, w Workflows, id string, raes []string) []Session {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	state, err := w.State(ctx, id)
	isNew := errors.Is(err, ErrGone) || err == nil && state.AsOf == 0
	if isNew || !takes(raes, state.RAE) {
		return nil
	}
	return []Session{{ID: id, RAE: state.RAE}}
}
