package uplink

import "time"

// Times that tests need to know.
const (
	AckDelay    = ackDelay
	AckInterval = ackInterval
	WillDelay   = willDelay * time.Second
)

// InFlight counts the events without an answer.
func InFlight(u *Uplink) int { return u.session.peek().unanswered }

// CutConnection closes the network connection, without a DISCONNECT.
func CutConnection(u *Uplink) { u.session.closeConn() }
