package uplink

// InFlight counts the events without an answer.
func InFlight(u *Uplink) int { return u.session.peek().unanswered }

// CutConnection closes the network connection without a word.
func CutConnection(u *Uplink) { u.session.cut() }
