package discovery

import (
	"time"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// maxClaims bounds the claims that are remembered. Past it an arbitrary one is forgotten: at worst an
// attribute changes its announcer once more.
const maxClaims = 8192

// How long a silent announcer holds an attribute: as long as what it announced lives.
const (
	claimTTL     = 30 * time.Minute // UPnP's usual advertisement lifetime
	claimTTLHost = 2 * time.Minute  // of mDNS host names, RFC 6762 section 10
)

// attributeClaims keeps single-valued attributes steady when a device announces several values for them.
// A TV with four UPnP root devices announces four locations every minute; taking each as a change would
// give an endless stream of events. So the first announcer (a UDN, a service type) holds the attribute.
//
// Invariant: only the announcer that holds an attribute changes its value, until it withdraws, falls
// silent for its time to live (a UDN that was made anew leaves no goodbye), or an announcer of higher
// rank claims the attribute. Of several host names the first announced is shown in the same way; the
// others stay in their set.
type attributeClaims struct {
	now  time.Time // of the frame; recorded time, so that a replay's speed does not matter
	held map[claimKey]claim
}

type claimKey struct{ mac, attr string }

type claim struct {
	announcer string
	rank      int
	at        time.Time
}

func newAttributeClaims() attributeClaims { return attributeClaims{held: map[claimKey]claim{}} }

// acquire reports whether announcer may set the attribute of o's device, and has it hold the attribute
// from then on.
func (c *attributeClaims) acquire(o *Observation, attr, announcer string, rank int) bool {
	key := claimKey{o.MAC, attr}
	ttl := claimTTL
	if attr == device.AttrMDNSHostname {
		ttl = claimTTLHost
	}
	held, ok := c.held[key]
	if ok && held.announcer != announcer &&
		(held.rank > rank || held.rank == rank && c.now.Sub(held.at) < ttl) {
		return false
	}
	if !ok && len(c.held) >= maxClaims {
		for k := range c.held {
			delete(c.held, k)
			break
		}
	}
	c.held[key] = claim{announcer, rank, c.now}
	return true
}

// release gives the attribute up if announcer holds it, and reports whether it did.
func (c *attributeClaims) release(o *Observation, attr, announcer string) bool {
	key := claimKey{o.MAC, attr}
	if held, ok := c.held[key]; !ok || held.announcer != announcer {
		return false
	}
	delete(c.held, key)
	return true
}
