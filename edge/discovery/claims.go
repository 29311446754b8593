package discovery

import "time"

// maxClaims bounds the memory of which source an attribute was taken from. Past it an arbitrary claim
// is forgotten: at worst an attribute changes its source once more.
const maxClaims = 8192

// How long a silent source holds an attribute: as long as what it announced lives.
const (
	claimTTL     = 30 * time.Minute // UPnP's usual advertisement lifetime
	claimTTLHost = 2 * time.Minute  // of mDNS host names, RFC 6762 section 10
)

// claims keeps single-valued attributes steady when a device announces several values for them. A TV
// with four UPnP root devices announces four locations every minute; taking each as a change would
// give an endless stream of events. So the first source (a UDN, a service type) holds the attribute:
// only it may change the value, until it withdraws, falls silent for its time to live (a UDN that was
// made anew leaves no goodbye), or a source of higher rank claims it. Of several host names the first
// announced is shown in the same way; the others stay in their set.
type claims struct {
	now  time.Time // of the frame; recorded time, so that a replay's speed does not matter
	held map[claimKey]claim
}

type claimKey struct{ mac, attr string }

type claim struct {
	source string
	rank   int
	at     time.Time
}

func newClaims() claims { return claims{held: map[claimKey]claim{}} }

// take reports whether source may set the attribute of o's device, and holds it from then on.
func (c *claims) take(o *Observation, attr, source string, rank int) bool {
	key := claimKey{o.MAC, attr}
	ttl := claimTTL
	if attr == AttrMDNSHostname {
		ttl = claimTTLHost
	}
	held, ok := c.held[key]
	if ok && held.source != source &&
		(held.rank > rank || held.rank == rank && c.now.Sub(held.at) < ttl) {
		return false
	}
	if !ok && len(c.held) >= maxClaims {
		for k := range c.held {
			delete(c.held, k)
			break
		}
	}
	c.held[key] = claim{source, rank, c.now}
	return true
}

// release gives the attribute up if source holds it, and reports whether it did.
func (c *claims) release(o *Observation, attr, source string) bool {
	key := claimKey{o.MAC, attr}
	if held, ok := c.held[key]; !ok || held.source != source {
		return false
	}
	delete(c.held, key)
	return true
}
