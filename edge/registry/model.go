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
// evidence names it. The evidence itself stays beside it.

// modelEvidence are the attributes that name a model, the strongest first: an
// mDNS service says it explicitly, a DHCP vendor class often does. The server that
// SSDP announces is left out, because it mostly names the UPnP library.
var modelEvidence = []string{device.AttrMDNSModel, device.AttrDHCPVendor}

// dhcpClients begin the vendor classes that name the DHCP client program, which
// is the same on devices of all makers. In lower case.
var dhcpClients = []string{"android-dhcp", "dhcpcd", "dhclient", "isc-dhcp", "msft ", "pxeclient", "httpclient", "systemd-networkd", "udhcp"}

// hasModelEvidence reports whether o may change the result of modelOf.
func hasModelEvidence(o discovery.Observation) bool {
	return slices.ContainsFunc(modelEvidence, func(name string) bool {
		_, set := o.Set[name]
		return set || slices.Contains(o.Unset, name)
	})
}

// modelOf is the model, or nil where no evidence names one.
func modelOf(r *record) any {
	for _, name := range modelEvidence {
		var model string
		_ = json.Unmarshal(r.value(name), &model) // absent, or no text: it names no model
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
