package admin

// Flags are the flags of a command's admin listener, for kong. The variable
// admin_addr is the default of its address.
type Flags struct {
	AdminAddr string `help:"Listen here for /healthz, /readyz and /metrics. An empty host is loopback. An address that other hosts reach needs --admin-token-file or --admin-tls-client-ca." default:"${admin_addr}" env:"ROLLCALL_ADMIN_ADDR" placeholder:"HOST:PORT" address:""`
	AccessFlags
}

// AccessFlags are Flags without the address.
type AccessFlags struct {
	AdminTokenFile   string `help:"File of bearer tokens, one a line, that open the admin listener. It is read for each request." env:"ROLLCALL_ADMIN_TOKEN_FILE" placeholder:"FILE"`
	AdminTLSCert     string `name:"admin-tls-cert" help:"Certificate of the admin listener, PEM: it then speaks TLS." env:"ROLLCALL_ADMIN_TLS_CERT" placeholder:"FILE"`
	AdminTLSKey      string `name:"admin-tls-key" help:"Its private key, PEM." env:"ROLLCALL_ADMIN_TLS_KEY" placeholder:"FILE"`
	AdminTLSClientCA string `name:"admin-tls-client-ca" help:"Certificates of the authorities in this PEM file open the admin listener too." env:"ROLLCALL_ADMIN_TLS_CLIENT_CA" placeholder:"FILE"`
	AdminPprof       bool   `help:"Serve Go's profiles below /debug/pprof/ of the admin listener." env:"ROLLCALL_ADMIN_PPROF"`
}

// Options returns what the flags say; Registry and Logger are the caller's.
func (f Flags) Options() Options {
	o := f.AccessFlags.Options()
	o.Addr = f.AdminAddr
	return o
}

// Options returns what the flags say; the rest is the caller's.
func (f AccessFlags) Options() Options {
	return Options{
		Access: Access{TokenFile: f.AdminTokenFile, Cert: f.AdminTLSCert, Key: f.AdminTLSKey, ClientCA: f.AdminTLSClientCA},
		Pprof:  f.AdminPprof,
	}
}
