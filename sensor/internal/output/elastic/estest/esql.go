package estest

import (
	"archive/zip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// installESQL returns the home of p with a module for ES|QL, which its distribution
// for tests lacks.
func (p Product) installESQL() (home string, err error) {
	if _, err := install(p.folder(), p.folder(), p.fetch); err != nil {
		return "", err
	}
	return install(p.folder()+"-esql", p.folder(), p.fetchESQL)
}

// esqlProject asks Maven for the module and what it needs. Elasticsearch's h3, for
// functions of geography, is not there, and not needed to start.
const esqlProject = `<project xmlns="http://maven.apache.org/POM/4.0.0">
<modelVersion>4.0.0</modelVersion><groupId>test</groupId><artifactId>esql</artifactId><version>1</version>
<dependencies>
<dependency><groupId>org.elasticsearch.plugin</groupId><artifactId>x-pack-esql</artifactId><version>%[1]s</version>
<exclusions><exclusion><groupId>org.elasticsearch</groupId><artifactId>elasticsearch-h3</artifactId></exclusion></exclusions></dependency>
<dependency><groupId>org.elasticsearch.plugin</groupId><artifactId>x-pack-esql-core</artifactId><version>%[1]s</version></dependency>
</dependencies></project>
`

// esqlDescriptor makes one module of the jars. The one of a whole distribution extends
// modules for Painless and machine learning besides, which ES|QL starts without.
const esqlDescriptor = `description=ES|QL
name=x-pack-esql
version=%[1]s
elasticsearch.version=%[1]s
java.version=17
classname=org.elasticsearch.xpack.esql.plugin.EsqlPlugin
extended.plugins=x-pack-core
`

// served begins the names of jars that the server has itself: it takes no class twice.
var served = []string{"commons-codec-", "elasticsearch-grok-", "hppc-", "jcodings-", "joni-", "lucene-core-", "slf4j-"}

// fetchESQL makes an archive of p's, and of the module.
func (p Product) fetchESQL(dir string) (archive string, err error) {
	project := filepath.Join(dir, "pom.xml")
	if err := os.WriteFile(project, fmt.Appendf(nil, esqlProject, p.Version), 0o600); err != nil {
		return "", err
	}
	jars := filepath.Join(dir, "jars")
	if err := maven("copy-dependencies", "-f", project, "-DoutputDirectory="+jars); err != nil {
		return "", fmt.Errorf("fetch ES|QL %s: %w", p.Version, err)
	}
	base, err := zip.OpenReader(filepath.Join(filepath.Dir(dir), p.folder()+".zip"))
	if err != nil {
		return "", err
	}
	defer base.Close()
	archive = filepath.Join(dir, "esql.zip")
	f, err := os.Create(archive)
	if err != nil {
		return "", err
	}
	defer f.Close()
	z := zip.NewWriter(f)
	for _, entry := range base.File {
		if strings.HasSuffix(entry.Name, "/") { // the files in it make it
			continue
		}
		if err := z.Copy(entry); err != nil {
			return "", err
		}
	}
	module := p.folder() + "/modules/x-pack-esql/"
	descriptor, err := z.Create(module + "plugin-descriptor.properties")
	if err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(descriptor, esqlDescriptor, p.Version); err != nil {
		return "", err
	}
	entries, err := os.ReadDir(jars)
	if err != nil {
		return "", err
	}
	for _, entry := range entries {
		if has(entry.Name(), served) {
			continue
		}
		to, err := z.Create(module + entry.Name())
		if err != nil {
			return "", err
		}
		if err := appendFile(to, filepath.Join(jars, entry.Name())); err != nil {
			return "", err
		}
	}
	return archive, z.Close()
}

func has(name string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

func appendFile(to io.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(to, f)
	return err
}
