package page

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// policy is what a browser may do with a page (Content Security Policy Level 3): run and
// apply what comes from here as files, and talk to nobody else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// protect sets the headers that each answer has.
func protect(h http.Header) {
	for name, text := range map[string]string{
		"Content-Security-Policy":      policy,
		"X-Content-Type-Options":       "nosniff",
		"X-Frame-Options":              "DENY",
		"Referrer-Policy":              "no-referrer",
		"Cache-Control":                "no-store",
		"Cross-Origin-Opener-Policy":   "same-origin",
		"Cross-Origin-Embedder-Policy": "require-corp",
		"Cross-Origin-Resource-Policy": "same-origin",
		"Permissions-Policy":           "camera=(), geolocation=(), microphone=()",
	} {
		h.Set(name, text)
	}
}

// ServeHTTP answers a request: GET and HEAD without a body, and the form with the token.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	protect(w.Header())
	no := func(status int, reason string) {
		p.refused.Add(1)
		refuse(w, status, reason)
	}
	switch {
	case !p.config.Access.Named(r):
		no(http.StatusMisdirectedRequest, "the address in the browser has another name than this sensor: use its IP address, localhost, or a name in its certificate")
	case isForeign(r):
		no(http.StatusForbidden, "another web page has asked for this")
	case r.Method == http.MethodPost && r.URL.Path == "/login" && p.config.Access.Closed():
		p.signIn(w, r)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		no(http.StatusMethodNotAllowed, "only GET and HEAD")
	case r.ContentLength != 0:
		no(http.StatusBadRequest, "no body")
	case len(r.URL.RawQuery) > 4*maxText || len(r.URL.Path) > 4*maxText:
		no(http.StatusRequestURITooLong, "the address is too long")
	default:
		p.handler.ServeHTTP(w, r)
	}
}

// closed lets only those through who have the token.
func (p *Page) closed(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if p.config.Access.Allows(r) {
			h(w, r)
			return
		}
		w.Header().Set("WWW-Authenticate", "Bearer")
		if strings.Contains(r.Header.Get("Accept"), "text/html") {
			p.show(w, http.StatusUnauthorized, "login", signInView{})
			return
		}
		refuse(w, http.StatusUnauthorized, "the token is missing, or it is another")
	}
}

// isForeign reports whether another web page has a browser ask (Fetch Metadata). A link
// that somebody follows is fine. Browsers that do not say who asks say at least where a
// form is from.
func isForeign(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return false
	case "":
		origin := r.Header.Get("Origin")
		if origin == "" {
			return false
		}
		_, host, _ := strings.Cut(origin, "://")
		return host != r.Host
	}
	return r.Method != http.MethodGet || r.Header.Get("Sec-Fetch-Mode") != "navigate" || r.Header.Get("Sec-Fetch-Dest") != "document"
}

// refuse answers with a reason, and ends the connection, whatever more it may bring.
func refuse(w http.ResponseWriter, status int, reason string) {
	w.Header().Set("Connection", "close")
	http.Error(w, reason, status)
}

// signIn takes the form with the token. It is the one request that is no reading: a
// browser cannot be told a header, and a token in an address would be in its history.
func (p *Page) signIn(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		p.refused.Add(1)
		refuse(w, http.StatusBadRequest, "the form cannot be read")
		return
	}
	cookie := p.config.Access.SignIn(r.PostForm.Get("token"))
	if cookie == nil {
		if now := p.config.Now().Unix(); now-p.complained.Swap(now) >= complainInterval {
			p.config.Log.Warn("page: somebody has given another token", "address", r.RemoteAddr)
		}
		p.show(w, http.StatusUnauthorized, "login", signInView{Wrong: true})
		return
	}
	http.SetCookie(w, cookie)
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// routes has what is under which path. The form, and what every page is drawn with, are
// for everybody.
func (p *Page) routes() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /login", func(w http.ResponseWriter, r *http.Request) { p.show(w, http.StatusOK, "login", signInView{}) })
	m.HandleFunc("GET /files/{name}", sendFile)
	for path, h := range map[string]http.HandlerFunc{
		"/{$}":                      p.showOverview,
		"/alerts":                   p.listAlerts,
		"/alerts/{id}":              p.showAlert,
		"/alerts/{id}/evidence.zip": p.sendPack,
		"/certificates":             p.listCertificates,
		"/certificates/{hash}":      p.showCertificate,
		"/servers":                  p.listServers,
		"/servers/{address}/{port}/{transport}/{carrier}": p.showServer,
		"/events": func(w http.ResponseWriter, r *http.Request) { p.hub.serve(w, r, p.done) },
	} {
		m.HandleFunc("GET "+path, p.closed(h))
	}
	m.HandleFunc("/", p.closed(func(w http.ResponseWriter, r *http.Request) { p.missing(w, "There is no such page.") }))
	return m
}

// answer is a page that many ask for, and when it was made.
type answer struct {
	mu   sync.Mutex
	at   time.Time
	body []byte
}

// turn waits for one of some turns, and reports whether there is one in time. The caller
// gives it back.
func turn(r *http.Request, turns chan struct{}, limit time.Duration) bool {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case turns <- struct{}{}:
		return true
	case <-t.C:
	case <-r.Context().Done():
	}
	return false
}

// busy says that others are served first.
func (p *Page) busy(w http.ResponseWriter) {
	p.refused.Add(1)
	w.Header().Set("Retry-After", "5")
	refuse(w, http.StatusServiceUnavailable, "too many requests: come again in some seconds")
}

// show makes a page of a template and sends it. It is complete before it is sent, so that
// who reads slowly keeps nobody waiting.
func (p *Page) show(w http.ResponseWriter, status int, name string, view any) {
	body, err := p.render(name, view)
	if err != nil {
		p.failed.Add(1)
		p.config.Log.Error("page: make "+name, "err", err)
		refuse(w, http.StatusInternalServerError, "the page could not be made: the log says why")
		return
	}
	p.send(w, status, body)
}

// send sends a page.
func (p *Page) send(w http.ResponseWriter, status int, body []byte) {
	p.answered.Add(1)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // who asked may be gone
}

// render makes a page of a template.
func (p *Page) render(name string, view any) ([]byte, error) {
	var b bytes.Buffer
	err := pages.ExecuteTemplate(&b, name, view)
	return b.Bytes(), err
}

// showShared sends a page that is the same for all, and made anew at most each
// refreshLimit.
func (p *Page) showShared(w http.ResponseWriter, name string, view func() any) {
	p.mu.Lock()
	a := p.shared[name]
	if a == nil {
		a = &answer{}
		p.shared[name] = a
	}
	p.mu.Unlock()
	a.mu.Lock()
	if now := p.config.Now(); a.body == nil || now.Sub(a.at) >= refreshLimit || now.Before(a.at) {
		body, err := p.render(name, view())
		if err != nil {
			a.mu.Unlock()
			p.failed.Add(1)
			p.config.Log.Error("page: make "+name, "err", err)
			refuse(w, http.StatusInternalServerError, "the page could not be made: the log says why")
			return
		}
		a.at, a.body = now, body
	}
	body := a.body
	a.mu.Unlock()
	p.send(w, http.StatusOK, body)
}

// missing says that there is nothing under an address.
func (p *Page) missing(w http.ResponseWriter, why string) {
	p.show(w, http.StatusNotFound, "missing", missingView{p.frame("Not found", ""), why})
}
