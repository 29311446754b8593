package store

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// interfaceAttributes are the attributes that a row of network_interface is made
// of: what the edge publishes of an interface.
var interfaceAttributes = []string{device.AttrHostname, device.AttrIPv4, device.AttrIPv6, device.AttrMAC, device.AttrMACLocal}

// writesInterface reports whether u writes one of interfaceAttributes.
func writesInterface(u Update) bool {
	return slices.ContainsFunc(interfaceAttributes, func(name string) bool {
		_, ok := u.Write[name]
		return ok
	})
}

// Interface is how a session's device is attached to its RAE's LAN.
type Interface struct {
	Session   string    `json:"session_id"`
	RAE       string    `json:"rae"`
	MAC       string    `json:"mac"`
	MACLocal  bool      `json:"mac_local,omitempty"` // locally administered, and so no evidence
	IPv4      string    `json:"ipv4,omitempty"`
	IPv6      []string  `json:"ipv6,omitempty"`
	Hostname  string    `json:"hostname,omitempty"`
	FirstSeen time.Time `json:"first_seen"` // observed
	ChangedAt time.Time `json:"changed_at"` // observed
	Closed    bool      `json:"closed,omitempty"`
}

func scanInterface(r pgx.CollectableRow) (Interface, error) {
	var i Interface
	var session uuid.UUID
	var ipv6 []byte
	err := r.Scan(&session, &i.RAE, &i.MAC, &i.MACLocal, &i.IPv4, &ipv6, &i.Hostname, &i.FirstSeen, &i.ChangedAt, &i.Closed)
	i.Session, i.FirstSeen, i.ChangedAt = session.String(), i.FirstSeen.UTC(), i.ChangedAt.UTC()
	if err == nil {
		_ = json.Unmarshal(ipv6, &i.IPv6) // what is no list of strings is not shown here
	}
	return i, err
}
