package registry

import (
	"encoding/json"
	"slices"
	"strings"
	"unicode"

	"github.com/rollcall-platform/rollcall/edge/discovery"
	"github.com/rollcall-platform/rollcall/internal/device"
)

// This file decides device.AttrDeviceModel: the device's model, as the strongest
// evidence tells it. The evidence itself stays beside it.

// modelEvidence are the attributes that tell a model, the strongest first: what
// an mDNS service says of it in so many words, then the DHCP vendor class. The
// server that SSDP announces is left out: it names the UPnP library, mostly.
var modelEvidence = []string{device.AttrMDNSModel, device.AttrDHCPVendor}

// dhcpClients begin the vendor classes that name the DHCP client program, which
// is the same on devices of all makers. In lower case.
var dhcpClients = []string{"android-dhcp", "dhcpcd", "dhclient", "isc-dhcp", "msft ", "pxeclient", "httpclient", "systemd-networkd", "udhcp"}

// tellsModel reports whether o may change what modelOf says.
func tellsModel(o discovery.Observation) bool {
	return slices.ContainsFunc(modelEvidence, func(name string) bool {
		_, set := o.Set[name]
		return set || slices.Contains(o.Unset, name)
	})
}

// modelOf is the model, or nil where nothing tells it.
func modelOf(r *record) any {
	for _, name := range modelEvidence {
		var model string
		_ = json.Unmarshal(r.value(name), &model) // absent, or no text: it tells nothing
		if !strings.ContainsFunc(model, unicode.IsLetter) || name == device.AttrDHCPVendor && namesClient(model) {
			continue
		}
		return model
	}
	return nil
}

func namesClient(vendorClass string) bool {
	vendorClass = strings.ToLower(vendorClass)
	return slices.ContainsFunc(dhcpClients, func(client string) bool { return strings.HasPrefix(vendorClass, client) })
}
