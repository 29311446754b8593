package command

import "time"

// maxBuckets is when buckets that are full again, and so mean nothing, go.
const maxBuckets = 1024

// limiter is a token bucket a session.
type limiter struct {
	burst    float64
	interval time.Duration // for one token
	buckets  map[string]bucket
}

type bucket struct {
	tokens float64
	at     time.Time
}

func newLimiter(burst int, interval time.Duration) *limiter {
	return &limiter{burst: float64(burst), interval: interval, buckets: map[string]bucket{}}
}

// tokens are what the session has at now.
func (l *limiter) tokens(session string, now time.Time) float64 {
	b, ok := l.buckets[session]
	if !ok {
		return l.burst
	}
	gained := max(0, now.Sub(b.at).Seconds()/l.interval.Seconds()) // a clock that went back gives nothing
	return min(l.burst, b.tokens+gained)
}

// wait is how long until the session has a token; 0 if it has one.
func (l *limiter) wait(session string, now time.Time) time.Duration {
	if have := l.tokens(session, now); have < 1 {
		return time.Duration((1 - have) * float64(l.interval))
	}
	return 0
}

// take uses one token.
func (l *limiter) take(session string, now time.Time) {
	l.buckets[session] = bucket{tokens: l.tokens(session, now) - 1, at: now}
	if len(l.buckets) <= maxBuckets {
		return
	}
	for s := range l.buckets {
		if l.tokens(s, now) >= l.burst {
			delete(l.buckets, s)
		}
	}
}
