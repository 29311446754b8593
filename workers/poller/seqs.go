package poller

import (
	"hash/maphash"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// seqs remembers the last seq of the sessions that were seen lately, to tell a
// snapshot that only confirms from one that mends a gap. It forgets: a session
// takes the place of another that has the same. So it serves the order in which
// lanes are served, and nothing else. 64 KiB.
type seqs struct {
	seed  maphash.Seed
	place [4096]struct {
		hash uint64
		seq  int64
	}
}

func newSeqs() *seqs { return &seqs{seed: maphash.MakeSeed()} }

// confirms notes the event that f is the fold of, and reports whether it only
// confirms: a snapshot before which, as far as is known, nothing is missing.
func (s *seqs) confirms(f device.Fold) bool {
	hash := maphash.String(s.seed, f.Session)
	p := &s.place[hash%uint64(len(s.place))]
	seq := f.Seqs.Last()
	gap := p.hash == hash && seq > p.seq+1
	if p.hash != hash || seq > p.seq {
		p.hash, p.seq = hash, seq
	}
	return f.Confirms() && !gap
}
