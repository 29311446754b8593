package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/store"
)

// statusText is a device's status, since when, and why.
func statusText(d store.Device) string {
	status := d.Attributes[device.AttrConnectionStatus]
	if d.Closed > 0 || status.Value == nil {
		return orElse(d.Status, "-")
	}
	text := fmt.Sprintf("%s since %s (seq %d)", d.Status, stamp(status.At), status.Seq)
	if why := reasonText(d); why != "" {
		text += ": " + why
	}
	return text
}

// reasonText puts what the edge gives as the reason into words. One that this
// command does not know is shown as it is.
func reasonText(d store.Device) string {
	var reason string
	_ = json.Unmarshal(d.Attributes[device.AttrConnectionReason].Value, &reason) // absent: there is none
	protocol, goodbye := strings.CutPrefix(reason, "goodbye-")
	switch {
	case goodbye:
		return "it said goodbye by " + strings.ToUpper(protocol)
	case reason == "silence":
		return "its RAE has not heard of it for too long"
	}
	return reason
}

// missingText is what events are missing, and what that means for what is shown.
func missingText(d store.Device) string {
	if len(d.Missing) == 0 {
		return "nothing"
	}
	return fmt.Sprintf("seq %s: what is shown may be older than it seems; see rollcall session progress %s", ranges(d.Missing), d.Session)
}
