// Package estest runs a real Elasticsearch or OpenSearch for tests, without
// containers.
//
// The servers are the distributions that their own integration tests use: whole,
// except that most of them lack modules. Maven fetches them once, into the user's
// cache; they run on a JDK of the machine that fits, or on one that pip fetches, on
// loopback, with data of their own, as nobody where the test is root.
//
// Where Maven, Java or the network is missing the test is skipped, with a line
// that begins with SKIP-REAL-ELASTICSEARCH; with ODDCERT_REQUIRE_ELASTICSEARCH=1
// in the environment it fails instead.
package estest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Product is a server that can be had.
type Product struct {
	Name    string // of the program, its archive's folder and its configuration file
	Version string

	artifact         string // for Maven, without the version
	env              string // with which the names of its environment variables begin
	javaMin, javaMax int    // that it runs on
}

// String is the product's name with its main version, such as elasticsearch-8.
func (p Product) String() string {
	main, _, _ := strings.Cut(p.Version, ".")
	return p.Name + "-" + main
}

// OpenSearch reports whether the product is OpenSearch, of any version.
func (p Product) OpenSearch() bool { return p.Name == openSearch }

const (
	elasticsearch = "elasticsearch"
	openSearch    = "opensearch"

	elasticsearchArtifact = "org.elasticsearch.distribution.integ-test-zip:elasticsearch"
	openSearchArtifact    = "org.opensearch.distribution.integ-test-zip:opensearch"
)

// The products. OpenSearch 3 comes with all modules, the others with few: they lack
// ingest processors, data stream lifecycles and field types that real ones have.
var (
	Elasticsearch7 = Product{elasticsearch, "7.17.29", elasticsearchArtifact, "ES", 11, 17}
	Elasticsearch8 = Product{elasticsearch, "8.19.21", elasticsearchArtifact, "ES", 17, 24}
	Elasticsearch9 = Product{elasticsearch, "9.0.0", elasticsearchArtifact, "ES", 21, 24}
	OpenSearch2    = Product{openSearch, "2.19.6", openSearchArtifact, "OPENSEARCH", 11, 21}
	OpenSearch3    = Product{openSearch, "3.6.0", openSearchArtifact, "OPENSEARCH", 21, 25}
)

// Products are all of them.
var Products = []Product{Elasticsearch7, Elasticsearch8, Elasticsearch9, OpenSearch2, OpenSearch3}

// startTimeout is ample for a loaded machine; a start takes about 15 s.
const startTimeout = 4 * time.Minute

// requestTimeout is ample for a loaded machine, on which the first bulk request after a
// start can take more than half a minute.
const requestTimeout = 2 * time.Minute

// Options choose a server.
type Options struct {
	Product Product // Elasticsearch8 unless it is given

	// Settings are further settings of the node, such as http.max_content_length=1mb.
	Settings []string

	// Security switches on TLS and authentication, of Elasticsearch only. The
	// server then has the users of Users, with the roles of Roles, and Admin.
	Security bool
	Users    []User
	Roles    string // roles.yml

	// ESQL adds a module for ES|QL to Elasticsearch8, whose distribution lacks it.
	ESQL bool
}

// User is a user of a server with security.
type User struct {
	Name, Password string
	Role           string
}

// Admin is the superuser of a server with security.
var Admin = User{Name: "admin", Password: "admin-password", Role: "superuser"}

// Server is a running server.
type Server struct {
	URL     string
	Product Product

	// With security: the authority of its certificate, and the SHA-256 in hex of
	// its certificate and of its authority's.
	CAFile, Fingerprint, CAFingerprint string

	options Options
	home    string // of the program
	java    string
	dir     string // config, data and logs
	port    string // empty until the first start has chosen one
	client  *http.Client
	process *process
}

// Start starts a server for one test.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s, err := start(o)
	if err != nil {
		missing(t, err)
	}
	t.Cleanup(func() { s.remove() })
	return s
}

var shared struct {
	sync.Mutex
	servers map[Product]*Server
	errs    map[Product]error
}

// Shared is an Elasticsearch 8 without security that all tests of the package share.
// It is started when first asked for; the package's TestMain must be Main.
func Shared(t testing.TB) *Server {
	t.Helper()
	return SharedOf(t, Elasticsearch8)
}

// SharedOf is such a server of another product.
func SharedOf(t testing.TB, p Product) *Server {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.servers == nil {
		shared.servers, shared.errs = map[Product]*Server{}, map[Product]error{}
	}
	if shared.servers[p] == nil && shared.errs[p] == nil {
		shared.servers[p], shared.errs[p] = start(Options{Product: p})
	}
	if err := shared.errs[p]; err != nil {
		missing(t, err)
	}
	return shared.servers[p]
}

// Main runs the tests of a package, and stops the shared servers after them. It
// returns the exit status.
func Main(m *testing.M) int {
	defer func() {
		shared.Lock()
		defer shared.Unlock()
		for _, s := range shared.servers {
			if s != nil {
				s.remove()
			}
		}
	}()
	return m.Run()
}

func missing(t testing.TB, err error) {
	t.Helper()
	if os.Getenv("ODDCERT_REQUIRE_ELASTICSEARCH") == "1" {
		t.Fatalf("start the server: %v", err)
	}
	// Standard error shows without -v too.
	fmt.Fprintf(os.Stderr, "SKIP-REAL-ELASTICSEARCH: %s: %v\n", t.Name(), err)
	t.Skipf("SKIP-REAL-ELASTICSEARCH: %v", err)
}

func start(o Options) (*Server, error) {
	if o.Product == (Product{}) {
		o.Product = Elasticsearch8
	}
	s := &Server{options: o, Product: o.Product, client: &http.Client{Timeout: requestTimeout}}
	var err error
	if s.java, err = findJava(s.Product); err != nil {
		return nil, err
	}
	if o.ESQL {
		s.home, err = s.Product.installESQL()
	} else {
		s.home, err = install(s.Product.folder(), s.Product.folder(), s.Product.fetch)
	}
	if err != nil {
		return nil, err
	}
	if err := s.configure(); err != nil {
		s.remove()
		return nil, err
	}
	if err := s.run(); err != nil {
		s.remove()
		return nil, err
	}
	return s, nil
}

// Stop stops the server, and keeps its data and port for Restart.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	s.process.stop()
}

// Restart starts the server again, at the same URL.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	if err := s.run(); err != nil {
		t.Fatal(err)
	}
}

// remove ends the server; its data goes too, so it need not take leave.
func (s *Server) remove() {
	if s.process != nil {
		s.process.kill()
	}
	if s.dir != "" {
		os.RemoveAll(s.dir)
	}
}

// run starts the process and waits until it answers.
func (s *Server) run() error {
	ports := filepath.Join(s.dir, "logs", "http.ports")
	if err := os.Remove(ports); err != nil && !os.IsNotExist(err) {
		return err
	}
	port := s.port
	if port == "" {
		port = "0"
	}
	args := []string{
		"-Ediscovery.type=single-node", "-Ehttp.host=127.0.0.1", "-Etransport.host=127.0.0.1",
		"-Ehttp.port=" + port, "-Etransport.port=0", "-Enode.portsfile=true",
		"-Epath.data=" + filepath.Join(s.dir, "data"), "-Epath.logs=" + filepath.Join(s.dir, "logs"),
		"-Ecluster.routing.allocation.disk.threshold_enabled=false", // a full disk of the machine does not matter here
	}
	scheme := "http"
	if !s.Product.OpenSearch() {
		args = append(args, "-Expack.ml.enabled=false", fmt.Sprint("-Expack.security.enabled=", s.options.Security))
		if s.Product != Elasticsearch7 { // which does not know it
			args = append(args, "-Expack.security.autoconfiguration.enabled=false")
		}
	}
	for _, setting := range s.options.Settings {
		args = append(args, "-E"+setting)
	}
	if s.options.Security {
		scheme = "https"
		args = append(args, "-Expack.security.http.ssl.enabled=true",
			"-Expack.security.http.ssl.certificate=http.crt", "-Expack.security.http.ssl.key=http.key")
	}
	env := []string{"HOME=" + s.dir, "PATH=" + os.Getenv("PATH")}
	for name, value := range map[string]string{
		"JAVA_HOME": s.java,
		"PATH_CONF": filepath.Join(s.dir, "config"),
		"TMPDIR":    filepath.Join(s.dir, "tmp"),
		"JAVA_OPTS": "-Xms512m -Xmx512m -XX:-AlwaysPreTouch -XX:TieredStopAtLevel=1", // a short life: start soon
	} {
		env = append(env, s.Product.env+"_"+name+"="+value)
	}
	var err error
	if s.process, err = startProcess(filepath.Join(s.home, "bin", s.Product.Name), args, env, s.dir); err != nil {
		return err
	}
	deadline := time.After(startTimeout)
	for {
		select {
		case <-s.process.done:
			return fmt.Errorf("%s ended: %s", s.Product.Name, s.process.tail())
		case <-deadline:
			s.process.stop()
			return fmt.Errorf("%s does not answer after %v: %s", s.Product.Name, startTimeout, s.process.tail())
		case <-time.After(100 * time.Millisecond):
		}
		if b, err := os.ReadFile(ports); err == nil && s.port == "" {
			if i := bytes.LastIndexByte(bytes.TrimSpace(b), ':'); i >= 0 {
				s.port = string(bytes.TrimSpace(b)[i+1:])
				s.URL = scheme + "://127.0.0.1:" + s.port
			}
		}
		if s.port == "" {
			continue
		}
		if status, _, err := s.request(http.MethodGet, "/_cluster/health?wait_for_status=yellow&timeout=10s", nil); err == nil && status == http.StatusOK {
			return s.identify()
		}
	}
}

// identify asks the server who it is: one node, of the version that was asked for.
func (s *Server) identify() error {
	status, b, err := s.request(http.MethodGet, "/_nodes/_local?filter_path=nodes.*.version", nil)
	if err != nil {
		return err
	}
	var answer struct {
		Nodes map[string]struct{ Version string }
	}
	if err := json.Unmarshal(b, &answer); err != nil || len(answer.Nodes) != 1 {
		return fmt.Errorf("%s names its nodes with status %d: %s", s.Product, status, b)
	}
	for _, n := range answer.Nodes {
		if n.Version != s.Product.Version {
			return fmt.Errorf("version %q, not %q", n.Version, s.Product.Version)
		}
	}
	return nil
}

// request sends a request as Admin.
func (s *Server) request(method, path string, body []byte) (int, []byte, error) {
	req, err := http.NewRequestWithContext(context.Background(), method, s.URL+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if s.options.Security {
		req.SetBasicAuth(Admin.Name, Admin.Password)
	}
	res, err := s.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, b, err
}

// Do sends a request, and decodes the answer into v unless that is nil. A
// status of 300 or more fails the test.
func (s *Server) Do(t testing.TB, method, path, body string, v any) {
	t.Helper()
	status, b, err := s.request(method, path, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	if status >= 300 {
		t.Fatalf("%s %s: status %d: %s", method, path, status, b)
	}
	if v == nil {
		return
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("%s %s: %v: %s", method, path, err, b)
	}
}

// Search returns the documents of the indexes that pattern names, by _id, after
// a refresh. A document that is there twice fails the test.
func (s *Server) Search(t testing.TB, pattern string) map[string]json.RawMessage {
	t.Helper()
	s.Do(t, http.MethodPost, "/"+pattern+"/_refresh", "", nil)
	documents := map[string]json.RawMessage{}
	id, after := "event.id", ""
	if s.Product == Elasticsearch7 { // without data streams, and so without templates for them
		id += ".keyword"
	}
	for {
		var answer struct {
			Hits struct {
				Hits []struct {
					ID     string          `json:"_id"`
					Source json.RawMessage `json:"_source"`
					Sort   json.RawMessage `json:"sort"`
				} `json:"hits"`
			} `json:"hits"`
		}
		body := `{"size":5000,"sort":[{"` + id + `":"asc"},{"_doc":"asc"}]` + after + `}`
		s.Do(t, http.MethodPost, "/"+pattern+"/_search", body, &answer)
		hits := answer.Hits.Hits
		if len(hits) == 0 {
			return documents
		}
		for _, h := range hits {
			if documents[h.ID] != nil {
				t.Fatalf("document %s is there twice", h.ID)
			}
			documents[h.ID] = h.Source
		}
		after = `,"search_after":` + string(hits[len(hits)-1].Sort)
	}
}

// Namespace is a namespace of data streams for one test: this server has no
// handler that deletes data streams.
func Namespace(t testing.TB) string {
	return fmt.Sprintf("%s_%x", strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToLower(t.Name())), time.Now().UnixNano())
}
