package offsets

// Capacity is how many records s has room for.
func Capacity(s *Span) int { return cap(s.pending) }
