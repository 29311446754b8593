package uplink

import "io"

// InFlight counts the events without an answer.
func InFlight(u *Uplink) int { return u.session.peek().unanswered }

// CutConnection closes the network connection without a word.
func CutConnection(u *Uplink) {
	u.session.mu.Lock()
	defer u.session.mu.Unlock()
	if c, ok := u.session.conn.(io.Closer); ok {
		_ = c.Close()
	}
}
