package main

import (
	"bytes"
	"fmt"
	"strings"
)

// readme is the page that Kibana shows of the package. tables are the fields of the
// data streams, by the names of the datasets.
func readme(tables map[string][]field) []byte {
	var b bytes.Buffer
	b.WriteString(`# oddcert

oddcert watches mirror ports, or reads captures, and tells which servers send a TLS certificate that they should not.
This package prepares Elasticsearch and Kibana for its records.

## How the records get here

There are two ways. Both give the same documents under the same ids, so a record that comes both ways is there once.

**oddcert sends them itself.** This is the better way: records wait on the disk of the sensor while Elasticsearch is
away. Install the assets of this package (Settings, "Install oddcert assets"), and give oddcert a key:

    POST /_security/api_key
    {
      "name": "oddcert",
      "role_descriptors": {
        "oddcert": {
          "cluster": ["monitor"],
          "indices": [{
            "names": ["logs-oddcert.*-*", "metrics-oddcert.stats-*"],
            "privileges": ["auto_configure", "create_doc"]
          }]
        }
      }
    }

    ODDCERT_ES_API_KEY=… oddcert live -i eth1 --es https://es.example.net:9200

**Elastic Agent reads files.** Have oddcert write a file, ` + "`oddcert live -i eth1 --json /var/log/oddcert/records.json`" + `, and
add this integration to the policy of the agent on that machine. Each data stream takes the lines of its dataset; switch
off those that you do not want.

Do not run ` + "`oddcert es setup`" + ` beside this package. Its index templates have the same names, and the one that comes last
replaces the other. The templates of ` + "`es setup`" + ` keep the time in nanoseconds for searches, and make alerts searchable
after a quarter of a second; a package can say neither.

## Data streams

| data stream | what it has |
|---|---|
`)
	for _, d := range datasets {
		fmt.Fprintf(&b, "| `%s-%s-*` | %s |\n", d.stream, d, d.description)
	}
	b.WriteString(`
## Inventory

Two transforms look at the records of all sensors together, every five minutes. What was not seen for a year leaves
them.

| index | what it has |
|---|---|
`)
	for _, t := range []transform{latestCertificate(), serversByCertificate()} {
		fmt.Fprintf(&b, "| `%s` | %s |\n", t.Dest.Aliases[0].Alias, t.Description)
	}
	b.WriteString(`
## Detection rules and dashboard

The rules are under Security, Rules, "Add Elastic rules", with the tag oddcert. They are off until you install and
enable them. They look at the records of all sensors together: one certificate or key on many servers, a flagged
certificate on another sensor, a sensor that is silent or loses frames, a link that is down. The dashboard is
"oddcert".
`)
	b.WriteString("\n## Fields\n")
	for _, d := range datasets {
		fmt.Fprintf(&b, "\n### %s\n\n| field | type | what it is |\n|---|---|---|\n", d.title)
		for _, f := range tables[d.name] {
			fmt.Fprintf(&b, "| %s | %s | %s |\n", f.Name, f.Type, strings.ReplaceAll(f.Description, "|", `\|`))
		}
	}
	return b.Bytes()
}
