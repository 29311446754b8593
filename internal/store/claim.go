package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// claimsPerGroup is how many sessions one transaction of ReviewClaims judges.
const claimsPerGroup = 16

// OpenClaim is a contested claim that waits.
type OpenClaim struct {
	ID      string // of the conflict
	Session string // that claims the device
	Holder  string // that holds it; empty: none is open
}

// Claim is a contested claim as a session of one of its two devices sees it.
type Claim struct {
	Mine    bool      `json:"claims"`    // its own device claims the other; else it is claimed
	Device  string    `json:"device_id"` // the other
	RAE     string    `json:"rae"`       // of the session that claims
	Kind    string    `json:"kind"`      // by which evidence
	Value   string    `json:"value"`
	NotedAt time.Time `json:"noted_at"`
}

// OpenClaims returns those that wait, at most MaxLimit.
func (s *Store) OpenClaims(ctx context.Context) ([]OpenClaim, error) {
	rows, err := s.pool.Query(ctx, sqlOpenClaims, MaxLimit)
	if err != nil {
		return nil, fmt.Errorf("list claims: %w", err)
	}
	claims, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (OpenClaim, error) {
		var id, session uuid.UUID
		var holder *uuid.UUID
		err := r.Scan(&id, &session, &holder)
		c := OpenClaim{ID: id.String(), Session: session.String()}
		if holder != nil {
			c.Holder = holder.String()
		}
		return c, err
	})
	if err != nil {
		return nil, fmt.Errorf("list claims: %w", err)
	}
	return claims, nil
}

// queueClaimsOf reads the claims of the sessions' devices, by session.
func queueClaimsOf(b *pgx.Batch, sessions []uuid.UUID, out map[string][]Claim) {
	b.Queue(sqlClaimsOf, uuidsOf(sessions)).Query(func(rows pgx.Rows) error {
		var session, other uuid.UUID
		var c Claim
		_, err := pgx.ForEachRow(rows, []any{&session, &c.Mine, &other, &c.RAE, &c.Kind, &c.Value, &c.NotedAt}, func() error {
			c.Device, c.NotedAt = other.String(), c.NotedAt.UTC()
			out[session.String()] = append(out[session.String()], c)
			return nil
		})
		return err
	})
}

// ReviewClaims judges again the sessions whose claims are contested: a claim is
// honoured where the session that held the device has let go. It returns the
// sessions of which a claim ended, be it so or by withdrawal: their device may be
// another one now. It may run in several processes at once.
func (s *Store) ReviewClaims(ctx context.Context) ([]string, error) {
	before, err := s.claimants(ctx)
	if err != nil || len(before) == 0 {
		return nil, err
	}
	if _, err := s.pool.Exec(ctx, sqlWithdrawOrphans); err != nil {
		return nil, fmt.Errorf("review claims: %w", err)
	}
	for rest := before; len(rest) > 0; rest = rest[min(len(rest), claimsPerGroup):] {
		if err := s.Apply(ctx, rest[:min(len(rest), claimsPerGroup)]); err != nil {
			return nil, fmt.Errorf("review claims: %w", err)
		}
	}
	after, err := s.claimants(ctx)
	if err != nil {
		return nil, err
	}
	open := make(map[string]bool, len(after))
	for _, u := range after {
		open[u.Session] = true
	}
	var ended []string
	for _, u := range before {
		if !open[u.Session] {
			ended = append(ended, u.Session)
		}
	}
	return ended, nil
}

// claimants are the sessions with contested claims, each as an update that writes
// nothing and has it judged again.
func (s *Store) claimants(ctx context.Context) ([]Update, error) {
	var out []Update
	for after := uuid.Nil; ; {
		rows, err := s.pool.Query(ctx, sqlClaimants, after, MaxLimit)
		if err != nil {
			return nil, fmt.Errorf("list claims: %w", err)
		}
		n := 0
		var rae string
		_, err = pgx.ForEachRow(rows, []any{&after, &rae}, func() error {
			n++
			out = append(out, Update{Session: after.String(), RAE: rae, again: true})
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("list claims: %w", err)
		}
		if n < MaxLimit {
			return out, nil
		}
	}
}
