package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// maxLab bounds a lab's name, in bytes.
const maxLab = 64

// RAE is a Reference Automation Environment as the tables know it.
type RAE struct {
	Serial    string    `json:"rae"`
	Lab       string    `json:"lab"`
	FirstSeen time.Time `json:"first_seen"`
	Heard     time.Time `json:"received_at,omitzero"` // Kafka's timestamp of its newest record
	Open      int       `json:"open_sessions"`
}

// LabelledRAEs returns all that have sent anything, by serial.
func (s *Store) LabelledRAEs(ctx context.Context) ([]RAE, error) {
	rows, err := s.pool.Query(ctx, sqlLabelledRAEs)
	if err != nil {
		return nil, fmt.Errorf("list RAEs: %w", err)
	}
	raes, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (RAE, error) {
		var out RAE
		var heard *time.Time
		err := r.Scan(&out.Serial, &out.Lab, &out.FirstSeen, &heard, &out.Open)
		out.FirstSeen, out.Heard = out.FirstSeen.UTC(), utc(heard)
		return out, err
	})
	if err != nil {
		return nil, fmt.Errorf("list RAEs: %w", err)
	}
	return raes, nil
}

// CheckLab reports why a name cannot be a lab's, or nil.
func CheckLab(lab string) error {
	if lab == "" || len(lab) > maxLab || storable(lab) != lab || strings.ContainsFunc(lab, func(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) }) {
		return fmt.Errorf("a lab's name has from 1 to %d bytes of text without spaces", maxLab)
	}
	return nil
}

// LabelRAE puts a RAE into a lab. What its sessions hold leads to their devices
// there too, unless it leads to others of that lab already: that is judged when
// their evidence changes. In the lab that it leaves, evidence that no other RAE of
// that lab has brought leads nowhere any more. Devices stay as they are.
func (s *Store) LabelRAE(ctx context.Context, serial, lab string) error {
	if err := CheckLab(lab); err != nil {
		return err
	}
	err := s.retry(ctx, func(conn *pgxpool.Conn) error {
		b := &pgx.Batch{}
		b.Queue(sqlBegin)
		found := false
		b.Queue(sqlLockRAE, serial).Query(func(rows pgx.Rows) error {
			found = rows.Next()
			rows.Close()
			return rows.Err()
		})
		b.Queue(sqlForgetOwners, serial, lab)
		b.Queue(sqlLabelRAE, serial, lab)
		b.Queue(sqlAdoptOwners, serial, lab)
		queueCommit(b)
		if err := conn.SendBatch(ctx, b).Close(); err != nil {
			return err
		}
		if !found {
			return errNoRAE
		}
		return nil
	})
	if errors.Is(err, errNoRAE) {
		return fmt.Errorf("%w: no RAE %q has sent anything; rollcall rae list shows those that have", ErrNotFound, clip(serial))
	}
	if err != nil {
		return fmt.Errorf("label RAE %q: %w", clip(serial), err)
	}
	return nil
}

var errNoRAE = errors.New("no such RAE")
