package device

// Names of the attributes that the platform itself sets, reads or shows. A name
// that is not here is carried, stored and shown all the same, as text: a lab may
// add its own. Code never spells a name: it uses these constants, and
// vocabulary_test.go holds both sides to it.
const (
	AttrConnectionStatus = "connection.status"
	AttrConnectionReason = "connection.reason"

	AttrMAC      = "network.mac"
	AttrMACLocal = "network.mac_local"
	AttrIPv4     = "network.ipv4"
	AttrLastIPv4 = "network.last_ipv4"
	AttrIPv6     = "network.ipv6"
	AttrHostname = "network.hostname"

	AttrDHCPHostname    = "dhcp.hostname"
	AttrDHCPFQDN        = "dhcp.fqdn"
	AttrDHCPVendor      = "dhcp.vendor_class"
	AttrDHCPClientID    = "dhcp.client_id"
	AttrDHCPFingerprint = "dhcp.fingerprint"
	AttrDHCPMUD         = "dhcp.mud_url"

	AttrMDNSHostname  = "mdns.hostname"
	AttrMDNSHostnames = "mdns.hostnames"
	AttrMDNSServices  = "mdns.services"
	AttrMDNSInstances = "mdns.instances"
	AttrMDNSName      = "mdns.name"
	AttrMDNSModel     = "mdns.model"
	AttrMDNSDeviceID  = "mdns.device_id"

	AttrSSDPServer     = "ssdp.server"
	AttrSSDPLocation   = "ssdp.location"
	AttrSSDPTypes      = "ssdp.types"
	AttrApplicationURL = "ssdp.application_url"
	AttrDIALLocation   = "dial.location"
	AttrUDNs           = "identity.udns"
	AttrRokuSerial     = "roku.serial"

	AttrDeviceName   = "device.name"
	AttrDeviceModel  = "device.model"
	AttrDeviceSerial = "device.serial"
	AttrESN          = "netflix.esn"
	AttrDIALName     = "dial.friendly_name"
	AttrDIALModel    = "dial.model"
	AttrUPnPName     = "upnp.friendly_name"
	AttrUPnPModel    = "upnp.model"
	AttrRokuModel    = "roku.model"
)

// Values of AttrConnectionStatus.
const (
	Online  = "online"
	Offline = "offline"
)

// Setter is who sets an attribute.
type Setter string

// Setters.
const (
	SetByDiscovery Setter = "discovery" // what a device says on the LAN
	SetByRegistry  Setter = "registry"  // what the Local Registry concludes
	// Reserved names have a meaning in the cloud, and no edge sets them by
	// itself yet. An edge that does must keep to that meaning.
	Reserved Setter = "reserved"
)

// IdentityKind is what sort of evidence of a device's identity an attribute holds.
type IdentityKind string

// Kinds of identity. Package identity says how much each of them proves.
const (
	IdentityESN      IdentityKind = "esn"    // Netflix's, burnt in
	IdentityUDN      IdentityKind = "udn"    // of a UPnP root device: a UUID that should outlive a reboot
	IdentitySerial   IdentityKind = "serial" // as the maker prints it
	IdentityClientID IdentityKind = "client" // DHCP client identifier (RFC 4361) that is more than the MAC
	IdentityMAC      IdentityKind = "mac"    // globally administered
)

// AttributeSpec is one entry of the vocabulary.
type AttributeSpec struct {
	Name string
	Type ValueType
	// Values are all that a value may be; nil: whatever Type allows.
	Values []string
	SetBy  Setter
	// Identity is the evidence that the value holds; empty: none.
	Identity IdentityKind
	// Search is the Temporal search attribute that shows the value; empty: none.
	Search string
	// Card is the label on a session's status card; empty: not shown there.
	Card string
	// Urgent says that a person acts on a change of it.
	Urgent bool
	// About says in a line what it is.
	About string
}

// Vocabulary is the one table of known attributes, in the order in which people
// are shown them. When adding an attribute: a constant and a line here; then
// name it in the discovery source, or in what else sets it.
var Vocabulary = []AttributeSpec{
	{Name: AttrConnectionStatus, Type: TextValue, Values: []string{Online, Offline}, SetBy: SetByRegistry, Search: "ConnectionStatus", Urgent: true, About: "whether the device is on the RAE's LAN"},
	{Name: AttrConnectionReason, Type: TextValue, SetBy: SetByRegistry, Urgent: true, About: "of a device that is offline: what told so"},

	{Name: AttrDeviceName, Type: TextValue, SetBy: Reserved, About: "name that a person or a tool gave the device"},
	{Name: AttrDeviceModel, Type: TextValue, SetBy: SetByRegistry, Search: SearchModel, About: "model, as the strongest evidence names it"},
	{Name: AttrDeviceSerial, Type: TextValue, SetBy: Reserved, Identity: IdentitySerial, Urgent: true, About: "serial number as the maker prints it"},
	{Name: AttrESN, Type: TextValue, SetBy: Reserved, Identity: IdentityESN, Search: "Esn", Urgent: true, About: "Netflix electronic serial number"},

	{Name: AttrHostname, Type: TextValue, SetBy: SetByDiscovery, Card: "host name", About: "the DHCP host name, else the mDNS one"},
	{Name: AttrMAC, Type: MACValue, SetBy: SetByDiscovery, Identity: IdentityMAC, Card: "MAC", Urgent: true, About: "hardware address on the RAE's LAN"},
	{Name: AttrMACLocal, Type: BoolValue, SetBy: SetByDiscovery, About: "true, or absent: the MAC is locally administered, often random"},
	{Name: AttrIPv4, Type: IPv4Value, SetBy: SetByDiscovery, Card: "IPv4", Urgent: true, About: "address on the RAE's LAN"},
	{Name: AttrLastIPv4, Type: IPv4Value, SetBy: SetByDiscovery, About: "of a device that left: the address it had"},
	{Name: AttrIPv6, Type: IPv6sValue, SetBy: SetByDiscovery, About: "IPv6 addresses"},

	{Name: AttrDHCPHostname, Type: TextValue, SetBy: SetByDiscovery, About: "DHCP option 12"},
	{Name: AttrDHCPFQDN, Type: TextValue, SetBy: SetByDiscovery, About: "DHCP option 81 (RFC 4702)"},
	{Name: AttrDHCPVendor, Type: TextValue, SetBy: SetByDiscovery, Search: SearchModel, About: "DHCP option 60, the vendor class"},
	{Name: AttrDHCPClientID, Type: TextValue, SetBy: SetByDiscovery, Identity: IdentityClientID, Urgent: true, About: "DHCP option 61 as hexadecimal bytes with colons"},
	{Name: AttrDHCPFingerprint, Type: TextValue, SetBy: SetByDiscovery, About: "DHCP option 55, the parameter request list: \"1,3,6,15\""},
	{Name: AttrDHCPMUD, Type: TextValue, SetBy: SetByDiscovery, About: "DHCP option 161, the MUD URL (RFC 8520)"},

	{Name: AttrMDNSHostname, Type: TextValue, SetBy: SetByDiscovery, About: "mDNS host name"},
	{Name: AttrMDNSHostnames, Type: TextsValue, SetBy: SetByDiscovery, About: "mDNS host names of a device that answers to several"},
	{Name: AttrMDNSServices, Type: TextsValue, SetBy: SetByDiscovery, About: "DNS-SD service types: \"_googlecast._tcp\""},
	{Name: AttrMDNSInstances, Type: TextsValue, SetBy: SetByDiscovery, About: "DNS-SD instances: \"Kitchen._googlecast._tcp\""},
	{Name: AttrMDNSName, Type: TextValue, SetBy: SetByDiscovery, About: "name for people from a DNS-SD TXT record"},
	{Name: AttrMDNSModel, Type: TextValue, SetBy: SetByDiscovery, Search: SearchModel, About: "model from a DNS-SD TXT record"},
	{Name: AttrMDNSDeviceID, Type: TextValue, SetBy: SetByDiscovery, About: "device identifier from a DNS-SD TXT record"},

	{Name: AttrUDNs, Type: TextsValue, SetBy: SetByDiscovery, Identity: IdentityUDN, Urgent: true, About: "UPnP unique device names: \"uuid:…\""},
	{Name: AttrSSDPServer, Type: TextValue, SetBy: SetByDiscovery, Search: SearchModel, About: "SSDP SERVER header: operating system, UPnP version, product"},
	{Name: AttrSSDPLocation, Type: TextValue, SetBy: SetByDiscovery, About: "URL of the UPnP description"},
	{Name: AttrSSDPTypes, Type: TextsValue, SetBy: SetByDiscovery, About: "UPnP device and service types"},
	{Name: AttrApplicationURL, Type: TextValue, SetBy: SetByDiscovery, About: "DIAL Application-URL header"},
	{Name: AttrDIALLocation, Type: TextValue, SetBy: SetByDiscovery, About: "URL of the DIAL device description"},
	{Name: AttrDIALName, Type: TextValue, SetBy: Reserved, About: "friendlyName of the DIAL device description"},
	{Name: AttrDIALModel, Type: TextValue, SetBy: Reserved, Search: SearchModel, About: "modelName of the DIAL device description"},
	{Name: AttrUPnPName, Type: TextValue, SetBy: Reserved, About: "friendlyName of the UPnP description"},
	{Name: AttrUPnPModel, Type: TextValue, SetBy: Reserved, Search: SearchModel, About: "modelName of the UPnP description"},
	{Name: AttrRokuSerial, Type: TextValue, SetBy: SetByDiscovery, Identity: IdentitySerial, Urgent: true, About: "serial number from Roku's SSDP answer"},
	{Name: AttrRokuModel, Type: TextValue, SetBy: Reserved, Search: SearchModel, About: "model from Roku's device information"},
}

// SearchModel is the Temporal search attribute that shows the first of
// ModelAttributes that the device has.
const SearchModel = "DeviceModel"

// The attributes that tell what people call a device, and its model, the best
// first.
var (
	NameAttributes  = []string{AttrDeviceName, AttrDIALName, AttrUPnPName, AttrMDNSName, AttrHostname, AttrDHCPHostname, AttrMDNSHostname}
	ModelAttributes = []string{AttrDeviceModel, AttrRokuModel, AttrDIALModel, AttrUPnPModel, AttrMDNSModel, AttrSSDPServer, AttrDHCPVendor}
)

var specs = func() map[string]AttributeSpec {
	m := make(map[string]AttributeSpec, len(Vocabulary))
	for _, s := range Vocabulary {
		m[s.Name] = s
	}
	return m
}()

// SpecOf returns the vocabulary's entry of a name; ok is false where it has none.
func SpecOf(name string) (spec AttributeSpec, ok bool) {
	spec, ok = specs[name]
	return spec, ok
}
