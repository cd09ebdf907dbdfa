// Package cbom writes the inventory as a bill of materials of cryptography in the JSON of
// CycloneDX 1.6 (ECMA-424): certificates, keys, algorithms and protocols as components,
// servers as services, with where and when each was seen.
//
// The same inventory gives the same bytes: the time of the document is that of the last
// handshake, and its serial number is made of the rest of it.
package cbom

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"

	"github.com/oddcert/oddcert/parsers/tls"
	"github.com/oddcert/oddcert/sensor/internal/harmless"
	"github.com/oddcert/oddcert/sensor/internal/inventory"
	"github.com/oddcert/oddcert/sensor/internal/posture"
)

// Options say what is written.
type Options struct {
	// Version is that of this program.
	Version string
	// Certificates are those to write, with the servers that showed one of them, at most
	// [MaxCertificates]; nil is for everything.
	Certificates map[inventory.Hash]struct{}
}

// Written says how much is in a document, and what was left out of it.
type Written struct {
	Certificates, Servers uint64
	// LeftOut counts certificates, algorithms and references from servers to their
	// certificates for which there was no room.
	LeftOut uint64
}

// Write writes the inventory as one document. It holds little of it in memory at a time.
func Write(w io.Writer, s *inventory.Store, o Options) (Written, error) {
	buffered := bufio.NewWriter(w)
	d := &document{store: s, options: o, sum: sha256.New(), algorithms: map[string]*used{}, keys: map[[16]byte]struct{}{}}
	d.w = io.MultiWriter(buffered, d.sum)
	err := errors.Join(d.write(), d.err)
	if err != nil {
		return d.written, fmt.Errorf("write the bill of materials: %w", err)
	}
	if err := buffered.Flush(); err != nil {
		return d.written, fmt.Errorf("write the bill of materials: %w", err)
	}
	return d.written, nil
}

// document is a document that is being written. Its parts come in an order in which
// each is complete when it is written: algorithms are known once all that use them is
// there.
type document struct {
	store   *inventory.Store
	options Options
	w       io.Writer // what was written is in sum, too
	sum     hash.Hash
	err     error // the first of a write
	written Written
	first   bool // nothing is in the list that is open

	keys       map[[16]byte]struct{} // that are written, by the half of a hash
	last       inventory.Hash        // of the certificates that are in the document
	algorithms map[string]*used      // by name
	protocols  map[uint16]*protocol  // by version
}

// used is an algorithm, and where it was seen.
type used struct {
	algorithm
	places
}

// protocol is a version, and where it was seen.
type protocol struct {
	suites map[uint16]struct{} // that only this version can have negotiated
	groups map[string]struct{}
	places
}

// places are the places where something was seen.
type places struct {
	list []cdx.EvidenceOccurrence
	more int // that are not in the list
}

func (p *places) add(o cdx.EvidenceOccurrence) {
	if len(p.list) < maxOccurrences {
		p.list = append(p.list, o)
	} else {
		p.more++
	}
}

// on sets the evidence of a component.
func (p *places) on(c *cdx.Component) {
	if len(p.list) > 0 {
		c.Evidence = &cdx.Evidence{Occurrences: &p.list}
	}
	if p.more > 0 {
		property(c, "oddcert:occurrences:more", strconv.Itoa(p.more))
	}
}

func property(c *cdx.Component, name, value string) {
	if value == "" {
		return
	}
	if c.Properties == nil {
		c.Properties = new([]cdx.Property)
	}
	*c.Properties = append(*c.Properties, cdx.Property{Name: name, Value: value})
}

// put writes bytes as they are.
func (d *document) put(s string) {
	if d.err == nil {
		_, d.err = io.WriteString(d.w, s)
	}
}

// item writes one member of the list that is open.
func (d *document) item(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if !d.first {
		d.put(",")
	}
	d.first = false
	d.put("\n")
	d.put(string(b))
	return d.err
}

func (d *document) open(name string) {
	d.put(",\n\"" + name + `":[`)
	d.first = true
}

func (d *document) write() error {
	totals, err := d.store.Totals()
	if err != nil {
		return err
	}
	meta := cdx.Metadata{
		Lifecycles: &[]cdx.Lifecycle{{Phase: cdx.LifecyclePhaseOperations}},
		Tools: &cdx.ToolsChoice{Components: &[]cdx.Component{{Type: cdx.ComponentTypeApplication, Name: "oddcert", Version: d.options.Version,
			Description: "passive network sensor: what is here was seen in handshakes that passed by"}}},
	}
	if totals.Last != 0 {
		meta.Timestamp = instant(totals.Last)
	}
	b, err := json.Marshal(meta)
	if err != nil {
		return err
	}
	d.put(`{"$schema":"http://cyclonedx.org/schema/bom-1.6.schema.json","bomFormat":"CycloneDX","specVersion":"1.6","version":1,` + "\n" + `"metadata":`)
	d.put(string(b))

	d.open("components")
	for _, part := range []func() error{d.certificates, d.protocolsOf, d.algorithmComponents} {
		if err := part(); err != nil {
			return err
		}
	}
	d.put("]")
	d.open("services")
	if err := d.eachServer(func(p *posture.Posture) error { d.written.Servers++; return d.item(d.service(p)) }); err != nil {
		return err
	}
	d.put("]")
	d.open("dependencies")
	if err := d.dependencies(); err != nil {
		return err
	}
	d.put("]")
	return d.end()
}

// end says how complete the document is, and gives it its number: a UUID of version 8
// (RFC 9562, section 5.8) of the SHA-256 of all before.
func (d *document) end() error {
	complete := cdx.CompositionAggregateUnknown // of what never passed by nobody knows
	if d.written.LeftOut > 0 {
		complete = cdx.CompositionAggregateIncomplete
	}
	d.open("compositions")
	if err := d.item(cdx.Composition{Aggregate: complete}); err != nil {
		return err
	}
	d.put("]")
	d.open("properties")
	if err := d.item(cdx.Property{Name: "oddcert:left_out", Value: strconv.FormatUint(d.written.LeftOut, 10)}); err != nil {
		return err
	}
	d.put("]")
	id := [16]byte(d.sum.Sum(nil))
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80
	d.put(fmt.Sprintf(",\n\"serialNumber\":\"urn:uuid:%x-%x-%x-%x-%x\"\n}\n", id[:4], id[4:6], id[6:8], id[8:10], id[10:]))
	return d.err
}

// eachCertificate calls f for the certificates that are in the document.
func (d *document) eachCertificate(f func(*inventory.Certificate) error) error {
	n := 0
	for c, err := range d.store.Certificates() {
		if err != nil {
			return err
		}
		if !d.wanted(c.SHA256) {
			continue
		}
		if n++; n > MaxCertificates {
			return nil
		}
		if err := f(c); err != nil {
			return err
		}
	}
	return nil
}

// has reports whether a certificate is in the document. They are in the order of their
// hashes.
func (d *document) has(id inventory.Hash) bool {
	if bytes.Compare(id[:], d.last[:]) > 0 {
		return false
	}
	_, err := d.store.Certificate(id)
	return err == nil && d.wanted(id)
}

func (d *document) wanted(id inventory.Hash) bool {
	if d.options.Certificates == nil {
		return true
	}
	_, ok := d.options.Certificates[id]
	return ok
}

// certificates writes certificates, each with its key where no other has it.
func (d *document) certificates() error {
	for c, err := range d.store.Certificates() {
		if err != nil {
			return err
		}
		if !d.wanted(c.SHA256) {
			continue
		}
		if d.written.Certificates == MaxCertificates {
			d.written.LeftOut++
			continue
		}
		d.written.Certificates++
		d.last = c.SHA256
		if err := d.certificate(c); err != nil {
			return err
		}
	}
	return nil
}

func (d *document) certificate(c *inventory.Certificate) error {
	var at places
	for shown, err := range d.store.ShownAt(c.SHA256) {
		if err != nil {
			return err
		}
		at.add(sighting(shown))
	}
	p := &cdx.CertificateProperties{SubjectName: text(c.Subject), IssuerName: text(c.Issuer), CertificateFormat: "X.509"}
	if c.NotBefore != 0 || c.NotAfter != 0 {
		p.NotValidBefore, p.NotValidAfter = date(c.NotBefore), date(c.NotAfter)
	}
	if c.SignatureAlgorithm != "" && d.use(ofSignature(c.SignatureAlgorithm), of(c)) {
		p.SignatureAlgorithmRef = cdx.BOMReference(algorithmRef(c.SignatureAlgorithm))
	}
	key := ""
	if c.SPKI != ([32]byte{}) {
		key = keyRef(c)
		p.SubjectPublicKeyRef = cdx.BOMReference(key)
	}
	id := fmt.Sprintf("%X", c.SHA256)
	v := &cdx.Component{Type: cdx.ComponentTypeCryptographicAsset, BOMRef: certificateRef(c.SHA256),
		Name:             text(cmp.Or(c.CommonName, c.Subject, id)),
		Hashes:           &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: id}},
		CryptoProperties: &cdx.CryptoProperties{AssetType: cdx.CryptoAssetTypeCertificate, CertificateProperties: p}}
	at.on(v)
	property(v, "oddcert:serial_number", c.Serial)
	property(v, "oddcert:roles", roles(c.Roles))
	property(v, "oddcert:first_seen", instant(c.First.Time))
	property(v, "oddcert:last_seen", instant(c.Last.Time))
	property(v, "oddcert:handshakes", strconv.FormatUint(c.Handshakes, 10))
	property(v, "oddcert:servers", count(c.Servers))
	property(v, "oddcert:clients", count(c.Clients))
	property(v, "oddcert:self_signed", strconv.FormatBool(c.SelfSigned))
	if c.Judged {
		property(v, "oddcert:trust", c.Trust.String())
	}
	if c.Alerts > 0 {
		property(v, "oddcert:alerts", strconv.FormatUint(c.Alerts, 10))
		property(v, "oddcert:alerts:level", c.Level)
	}
	property(v, "oddcert:parse_error", text(c.ParseError))
	if err := d.item(v); err != nil || key == "" {
		return err
	}
	half := [16]byte(c.SPKI[:16])
	if _, ok := d.keys[half]; ok {
		return nil
	}
	d.keys[half] = struct{}{}
	return d.key(c, key)
}

// key writes the key of a certificate.
func (d *document) key(c *inventory.Certificate, ref string) error {
	m := &cdx.RelatedCryptoMaterialProperties{Type: cdx.RelatedCryptoMaterialTypePublicKey, ID: fmt.Sprintf("SHA-256 of the SubjectPublicKeyInfo: %X", c.SPKI)}
	if name := posture.KeyName(c); name != "" {
		if d.use(ofKey(name, c.KeyAlgorithm, c.KeyCurve, c.KeySize), of(c)) {
			m.AlgorithmRef = cdx.BOMReference(algorithmRef(name))
		}
		if c.KeySize > 0 {
			m.Size = &c.KeySize
		}
	}
	return d.item(&cdx.Component{Type: cdx.ComponentTypeCryptographicAsset, BOMRef: ref, Name: text(cmp.Or(posture.KeyName(c), "key")),
		CryptoProperties: &cdx.CryptoProperties{AssetType: cdx.CryptoAssetTypeRelatedCryptoMaterial, RelatedCryptoMaterialProperties: m}})
}

// use notes that algorithms were seen at a place, and reports whether there was room for
// them.
func (d *document) use(a algorithm, at ...cdx.EvidenceOccurrence) bool {
	u := d.algorithms[a.name]
	if u == nil {
		if len(d.algorithms) >= maxAlgorithms {
			d.written.LeftOut++
			return false
		}
		u = &used{algorithm: a}
		d.algorithms[a.name] = u
	}
	for _, o := range at {
		u.add(o)
	}
	return true
}

// protocolsOf writes the versions that servers have negotiated, with the suites that
// only one version of theirs can have. It notes the algorithms of all of it.
func (d *document) protocolsOf() error {
	d.protocols = map[uint16]*protocol{}
	err := d.eachServer(func(p *posture.Posture) error {
		v := p.Server
		at := server(v)
		for version := range v.Versions {
			known := d.protocols[version]
			if known == nil {
				known = &protocol{suites: map[uint16]struct{}{}, groups: map[string]struct{}{}}
				d.protocols[version] = known
			}
			known.add(at)
			for suite := range v.Suites {
				if only(v, version, suite) {
					known.suites[suite] = struct{}{}
				}
			}
			if len(v.Versions) == 1 {
				for g := range v.Groups {
					known.groups[posture.GroupName(g)] = struct{}{}
				}
			}
		}
		for _, list := range [...]struct {
			values []posture.Value
			of     func(string) []algorithm
		}{{p.Suites, ofSuite}, {p.Groups, ofGroup}, {p.Signatures, func(s string) []algorithm { return []algorithm{ofScheme(s)} }}} {
			for _, value := range list.values {
				for _, a := range list.of(value.Name) {
					d.use(a, at)
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, version := range slices.Sorted(maps.Keys(d.protocols)) {
		if err := d.item(d.protocol(version)); err != nil {
			return err
		}
	}
	return nil
}

// only reports whether a server can have negotiated a suite with this version alone.
func only(v *inventory.Server, version, suite uint16) bool {
	latest := func(version uint16) bool { _, number := tls.VersionName(version); return number == "1.3" }
	if latest(version) != (suite>>8 == 0x13) {
		return false
	}
	n := 0
	for other := range v.Versions {
		if latest(other) == latest(version) {
			n++
		}
	}
	return n == 1
}

func (d *document) protocol(version uint16) *cdx.Component {
	known := d.protocols[version]
	name := posture.VersionName(version)
	kind, number := tls.VersionName(version)
	p := &cdx.CryptoProtocolProperties{Type: cdx.CryptoProtocolTypeTLS, Version: number}
	if kind != "tls" {
		p.Type = cdx.CryptoProtocolTypeOther // CycloneDX 1.6 has neither DTLS nor SSL
	}
	var suites []cdx.CipherSuite
	refs := map[string]struct{}{}
	for _, suite := range slices.Sorted(maps.Keys(known.suites)) {
		s := cdx.CipherSuite{Name: posture.SuiteName(suite), Identifiers: &[]string{fmt.Sprintf("0x%02X", suite>>8), fmt.Sprintf("0x%02X", suite&0xff)}}
		var algorithms []cdx.BOMReference
		for _, a := range ofSuite(s.Name) {
			if d.algorithms[a.name] != nil {
				algorithms = append(algorithms, cdx.BOMReference(a.ref()))
			}
		}
		if len(algorithms) > 0 {
			s.Algorithms = &algorithms
		}
		suites = append(suites, s)
	}
	for name := range known.groups {
		for _, a := range ofGroup(name) {
			if d.algorithms[a.name] != nil {
				refs[a.ref()] = struct{}{}
			}
		}
	}
	if len(suites) > 0 {
		p.CipherSuites = &suites
	}
	if len(refs) > 0 {
		var list []cdx.BOMReference
		for _, r := range slices.Sorted(maps.Keys(refs)) {
			list = append(list, cdx.BOMReference(r))
		}
		p.CryptoRefArray = &list
	}
	c := &cdx.Component{Type: cdx.ComponentTypeCryptographicAsset, BOMRef: protocolRef(version), Name: name,
		CryptoProperties: &cdx.CryptoProperties{AssetType: cdx.CryptoAssetTypeProtocol, ProtocolProperties: p}}
	known.on(c)
	return c
}

// algorithmComponents writes the algorithms that something uses.
func (d *document) algorithmComponents() error {
	for _, name := range slices.Sorted(maps.Keys(d.algorithms)) {
		u := d.algorithms[name]
		c := u.component()
		u.on(c)
		if err := d.item(c); err != nil {
			return err
		}
	}
	return nil
}

func (d *document) eachServer(f func(*posture.Posture) error) error {
	for p, err := range posture.All(d.store) {
		if err != nil {
			return err
		}
		if d.options.Certificates != nil {
			if shows, err := d.shows(p.Server.ServerKey); err != nil {
				return err
			} else if !shows {
				continue
			}
		}
		if err := f(p); err != nil {
			return err
		}
	}
	return nil
}

// shows reports whether a server showed a certificate that is in the document.
func (d *document) shows(k inventory.ServerKey) (bool, error) {
	for shown, err := range d.store.ShownBy(k) {
		if err != nil || d.has(shown.Certificate) {
			return err == nil, err
		}
	}
	return false, nil
}

// service is a server, with what it was seen with.
func (d *document) service(p *posture.Posture) *cdx.Service {
	v := p.Server
	s := &cdx.Service{BOMRef: serverRef(v.ServerKey), Name: address(v.ServerKey), Properties: new([]cdx.Property)}
	if v.Address.IsValid() {
		// Some validators do not know the short form of IPv6 in IRIs.
		s.Endpoints = &[]string{v.Transport.String() + "://" + net.JoinHostPort(expanded(v.Address), strconv.Itoa(int(v.Port)))}
	}
	set := func(name, value string) {
		if value != "" {
			*s.Properties = append(*s.Properties, cdx.Property{Name: "oddcert:" + name, Value: value})
		}
	}
	set("carrier", v.Carrier)
	set("first_seen", instant(v.First.Time))
	set("first_seen:in", spot(v.First))
	set("last_seen", instant(v.Last.Time))
	set("last_seen:in", spot(v.Last))
	set("handshakes", strconv.FormatUint(v.Handshakes, 10))
	set("clients", count(v.Clients))
	set("versions", counted(p.Versions))
	set("cipher_suites", counted(p.Suites))
	set("groups", counted(p.Groups))
	set("groups:offered_by_clients", counted(p.Offered))
	set("signature_schemes", counted(p.Signatures))
	set("exchange", p.Exchange.String())
	set("exchange:post_quantum_handshakes", strconv.FormatUint(p.PostQuantum, 10))
	set("leaf", p.Leaf.String())
	for o, n := range v.Outcomes {
		if n > 0 {
			set("handshakes:"+outcome(o), strconv.FormatUint(n, 10))
		}
	}
	set("weak", text(strings.Join(p.Weak, ", ")))
	if v.Alerts > 0 {
		set("alerts", strconv.FormatUint(v.Alerts, 10))
		set("alerts:level", v.Level)
	}
	return s
}

// dependencies writes what each part refers to.
func (d *document) dependencies() error {
	depends := func(ref string, on map[string]struct{}) error {
		delete(on, ref)
		if len(on) == 0 {
			return nil
		}
		list := slices.Sorted(maps.Keys(on))
		return d.item(cdx.Dependency{Ref: ref, Dependencies: &list})
	}
	keys := map[[16]byte]struct{}{}
	err := d.eachCertificate(func(c *inventory.Certificate) error {
		on := map[string]struct{}{}
		if d.algorithms[c.SignatureAlgorithm] != nil {
			on[algorithmRef(c.SignatureAlgorithm)] = struct{}{}
		}
		if len(c.Chain) > 0 && d.has(c.Chain[0]) {
			on[certificateRef(c.Chain[0])] = struct{}{}
		}
		if c.SPKI == ([32]byte{}) {
			return depends(certificateRef(c.SHA256), on)
		}
		on[keyRef(c)] = struct{}{}
		if err := depends(certificateRef(c.SHA256), on); err != nil {
			return err
		}
		half := [16]byte(c.SPKI[:16])
		if _, ok := keys[half]; ok || d.algorithms[posture.KeyName(c)] == nil {
			return nil
		}
		keys[half] = struct{}{}
		return depends(keyRef(c), map[string]struct{}{algorithmRef(posture.KeyName(c)): {}})
	})
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(d.algorithms)) {
		on := map[string]struct{}{}
		for _, part := range d.algorithms[name].of {
			if d.algorithms[part] != nil {
				on[algorithmRef(part)] = struct{}{}
			}
		}
		if err := depends(algorithmRef(name), on); err != nil {
			return err
		}
	}
	for _, version := range slices.Sorted(maps.Keys(d.protocols)) {
		on := map[string]struct{}{}
		for suite := range d.protocols[version].suites {
			d.refer(on, ofSuite(posture.SuiteName(suite)))
		}
		for group := range d.protocols[version].groups {
			d.refer(on, ofGroup(group))
		}
		if err := depends(protocolRef(version), on); err != nil {
			return err
		}
	}
	return d.eachServer(func(p *posture.Posture) error {
		on, err := d.needs(p)
		if err != nil {
			return err
		}
		return depends(serverRef(p.Server.ServerKey), on)
	})
}

// refer adds the references to those algorithms that are in the document.
func (d *document) refer(on map[string]struct{}, list []algorithm) {
	for _, a := range list {
		if d.algorithms[a.name] != nil {
			on[a.ref()] = struct{}{}
		}
	}
}

// needs are the references to what a server was seen with.
func (d *document) needs(p *posture.Posture) (map[string]struct{}, error) {
	on := map[string]struct{}{}
	for version := range p.Server.Versions {
		on[protocolRef(version)] = struct{}{}
	}
	for _, v := range p.Suites {
		d.refer(on, ofSuite(v.Name))
	}
	for _, v := range p.Groups {
		d.refer(on, ofGroup(v.Name))
	}
	for _, v := range p.Signatures {
		d.refer(on, []algorithm{ofScheme(v.Name)})
	}
	n := 0
	for shown, err := range d.store.ShownBy(p.Server.ServerKey) {
		if err != nil {
			return nil, err
		}
		if shown.Roles&inventory.Leaf == 0 || !d.has(shown.Certificate) {
			continue
		}
		if n++; n > maxLeaves {
			d.written.LeftOut++
			continue
		}
		on[certificateRef(shown.Certificate)] = struct{}{}
	}
	return on, nil
}

func certificateRef(id inventory.Hash) string { return fmt.Sprintf("certificate/%X", id) }
func keyRef(c *inventory.Certificate) string  { return fmt.Sprintf("key/%X", c.SPKI) }
func protocolRef(version uint16) string       { return fmt.Sprintf("protocol/%04X", version) }
func serverRef(k inventory.ServerKey) string {
	return "server/" + address(k) + "/" + k.Transport.String() + "/" + k.Carrier
}

// address is the address and port of a server, or its MAC address over EAPOL.
func address(k inventory.ServerKey) string {
	if !k.Address.IsValid() {
		return net.HardwareAddr(k.MAC[:]).String()
	}
	return netip.AddrPortFrom(k.Address, k.Port).String()
}

func expanded(a netip.Addr) string { return a.WithZone("").StringExpanded() }

// text makes what comes from the wire fit to be read, and bounds it.
func text(s string) string { return harmless.Short(s, maxText) }

func instant(t int64) string { return time.Unix(0, t).UTC().Format(time.RFC3339Nano) }

func date(seconds int64) string { return time.Unix(seconds, 0).UTC().Format(time.RFC3339) }

func count(c inventory.Count) string {
	if c.Estimated {
		return fmt.Sprintf("about %d", c.N)
	}
	return strconv.FormatUint(c.N, 10)
}

func roles(r inventory.Role) string {
	var names []string
	for _, of := range []struct {
		inventory.Role
		name string
	}{{inventory.Leaf, "leaf"}, {inventory.Issuer, "issuer"}, {inventory.Client, "client"}} {
		if r&of.Role != 0 {
			names = append(names, of.name)
		}
	}
	return strings.Join(names, ", ")
}
