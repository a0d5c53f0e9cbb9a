"""Every code of a problem: what it means, how it looks, what to do. ``docs/problems.md`` is made of this table.

After a change: ``python -c "from reconciler.desired.codes import page; import pathlib as p;
p.Path('docs/problems.md').write_text(page())"``. A test finds codes that are missing here, or are used no more.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Code(NamedTuple):
    """``example`` is a message as people see it."""

    code: str
    meaning: str
    example: str
    remedy: str


READING: Final = (
    Code(
        "file-too-large",
        "The file is larger than 64 KiB and is not read.",
        "the file has 70,000 bytes, at most 65,536 are read.",
        "Split it: one object a file.",
    ),
    Code(
        "lfs-pointer",
        "The file is a Git LFS pointer; its content is not in the repository.",
        "this is a Git LFS pointer, not a document.",
        "Take the file out of LFS.",
    ),
    Code("invalid-utf-8", "The file is not UTF-8.", "byte 0xff is not valid UTF-8.", "Save the file as UTF-8."),
    Code(
        "control-character",
        "The text holds a character that a reader of a pull request cannot see.",
        "the text holds U+202E, which nobody can see.",
        "Remove it, or write it as an escape in double quotes.",
    ),
    Code(
        "yaml-syntax",
        "The file is not YAML 1.2.",
        "the YAML cannot be read: unclosed bracket '['.",
        "Mend the line; indent with spaces, not tabs.",
    ),
    Code(
        "unsupported-yaml",
        "The file uses an alias, a tag or a directive, which are not read.",
        "aliases (*name) are not read.",
        "Write the value out; quote what shall be a string.",
    ),
    Code(
        "duplicate-key",
        "A key stands twice in one mapping, so one value would be lost.",
        'the key "port" stands twice in one mapping.',
        "Keep one of them.",
    ),
    Code(
        "too-deep",
        "The document is nested more deeply than any object is.",
        "the document is nested too deeply.",
        "Write it flatter.",
    ),
    Code(
        "empty-file",
        "The file holds no document.",
        "the file holds no document.",
        "Write one object, or delete the file.",
    ),
    Code(
        "not-one-document",
        "The file holds a list, or several documents.",
        "the file holds a list or several documents, one mapping is needed.",
        "Put each object into a file of its own.",
    ),
    Code(
        "not-a-mapping",
        "The document is a single value.",
        "the document is a single value, a mapping is needed.",
        "Start with apiVersion:.",
    ),
    Code(
        "poison",
        "Reading the file once ended the process, so it is not read again in this form.",
        "reading this file ended the parser; it is not read again in this form.",
        "Write it differently.",
    ),
)
PLACE: Final = (
    Code(
        "not-a-regular-file",
        "A symbolic link, a submodule or an executable file lies where an object belongs.",
        "this is a symbolic link; only regular files (mode 100644) are read.",
        "Commit the content itself.",
    ),
    Code(
        "misplaced-file",
        "A YAML file lies in a folder of objects, but no object belongs at its path.",
        "no object belongs at this path; a Route lies at routes/<team>/<name>.yaml.",
        "Move or rename it as the message says; names are lower-case letters, digits and inner hyphens.",
    ),
    Code(
        "wrong-kind",
        "The document is of another kind than its folder.",
        'kind is "Agent", but this path holds a Route.',
        "Correct kind, or move the file.",
    ),
    Code(
        "wrong-name",
        "metadata.name is not the file's name.",
        'metadata.name is "web", but the file is called shop.yaml.',
        "Make them equal.",
    ),
    Code(
        "unknown-version",
        "The document is not of an apiVersion that this control plane reads.",
        "apiVersion is missing, this control plane reads cloudlunacy/v1.",
        "Write apiVersion: cloudlunacy/v1.",
    ),
    Code(
        "fleet-missing",
        "There is no fleet.yaml, so nothing can be checked. What is published stays in service.",
        "there is no fleet.yaml, and nothing can be checked without it.",
        "Bring the file back.",
    ),
)
FIELDS: Final = (
    Code(
        "unknown-field",
        "A field is written that the kind does not have.",
        'there is no field "spec.backends[0].wieght". Did you mean "weight"?',
        "Correct its name, or remove it.",
    ),
    Code("missing-field", "A field that is needed is not written.", '"spec.backends" is missing.', "Add it."),
    Code(
        "invalid-value",
        "A value does not have the form that its field needs, or contradicts another field.",
        "spec.tls.mode: the value should be 'terminate', 'passthrough' or 'none'.",
        "Write what the message asks for.",
    ),
)
REFERENCES: Final = (
    Code(
        "unknown-team",
        "The folder names a team that fleet.yaml does not have.",
        'the fleet has no team "shpo". Did you mean "shop"?',
        "Add the team to fleet.yaml, or move the file.",
    ),
    Code(
        "unknown-agent",
        "An agent is named that does not exist, directly or through a deployment.",
        'backend names agent "vsp-1", which does not exist. Did you mean "vps-1"?',
        "Name another, or enrol it.",
    ),
    Code(
        "unknown-deployment",
        "A deployment is named that the team does not have.",
        'backend names deployment "wbe", which does not exist. Did you mean "web"?',
        "Name another, or add its file.",
    ),
    Code(
        "unknown-certificate",
        "A certificate is named that does not exist.",
        'spec.tls names certificate "shop", which does not exist.',
        "Name another, or add its file.",
    ),
    Code(
        "unknown-secret",
        "A secret is named that the team does not have, or that cannot be opened.",
        'spec.secrets names secret "db", which does not exist.',
        "Name another, or seal it again.",
    ),
    Code(
        "unknown-secret-key",
        "The secret has no value by that name.",
        'secret "db" has no key "passwrod". Did you mean "password"?',
        "Name a key that it has, or add it.",
    ),
    Code(
        "unknown-port",
        "The deployment has no single port that fits.",
        'deployment "web" has no single port that fits; it has: http (8080), metrics (9090).',
        "Name one with port or portName.",
    ),
    Code(
        "ambiguous-port",
        "The deployment has several ports, and the backend names none.",
        'deployment "web" has 2 ports.',
        "Name one with port or portName.",
    ),
    Code(
        "unknown-entry-point",
        "A TCP route names an entry point that the fleet does not have.",
        'the fleet has no TCP entry point "smtp".',
        "Name one of entryPoints.tcp in fleet.yaml, or add it there.",
    ),
    Code(
        "certificate-does-not-cover",
        "The named certificate lacks a host of the route.",
        'certificate "shop" does not cover "web.app.example.com".',
        "Add the host to its dnsNames, or name another.",
    ),
    Code(
        "no-certificate",
        "TLS ends at the front, and no certificate covers the host.",
        'no certificate covers "shop.example.com".',
        "Add the certificate that the hint writes out, or leave TLS out.",
    ),
    Code(
        "certificate-shadowed",
        "Warning: another certificate has the host by its exact name, and is the one that is served.",
        '"shop.example.com" is served with certificate "shop", which names it more exactly than "all".',
        "Name the one that is served, or take the host out of it.",
    ),
    Code(
        "certificate-in-use",
        "A certificate that was deleted, or has lost a name, is needed by routes; its last good version stays.",
        "without the former version of this certificate these hosts would lose TLS: "
        '"shop.example.com" (routes/shop/shop.yaml).',
        "Change or delete the routes first, or cover the hosts by another certificate.",
    ),
    Code(
        "certificate-pending",
        "The certificate for a host is not there yet; the route comes by itself once it is.",
        'the certificate "shop" for "shop.example.com" is not there yet.',
        "Nothing has to be done if it is on its way.",
    ),
    Code(
        "unknown-directory",
        "The fleet has no ACME server of that name.",
        'the fleet has no ACME directory "letsencrpyt".',
        "Name one of acme.directories in fleet.yaml, or add it there.",
    ),
    Code(
        "wildcard-needs-dns-01",
        "ACME proves wildcards over DNS only (RFC 8555, 7.1.3).",
        '"*.shop.example.com" cannot be proven with http-01: wildcards need dns-01.',
        "Write dns-01, or list the hosts one by one.",
    ),
    Code(
        "agent-lacks-capability",
        "An agent cannot run that type of deployment.",
        'agent "vps-1" cannot run type mongodb; it can run container.',
        "Add the capability, or move the deployment.",
    ),
    Code(
        "agent-cordoned",
        "The agent keeps what it has and takes nothing new. A warning where nothing is known of what is in service, as "
        "in `validate`.",
        'agent "vps-1" is cordoned: it keeps what it has and takes nothing new.',
        "Use another agent, or make it active again.",
    ),
    Code(
        "selects-no-agent",
        "Warning: no agent of the team carries the labels, so the deployment runs nowhere.",
        'no agent of team "shop" carries the labels region=ams; the deployment runs nowhere.',
        "Label an agent.",
    ),
)
OWNERSHIP: Final = (
    Code(
        "agent-not-granted",
        "The fleet does not let the team use that agent.",
        'team "shop" may not use agent "vps-9".',
        "Grant it in fleet.yaml, or use another.",
    ),
    Code(
        "host-not-owned",
        "The fleet does not let the team claim that host.",
        'team "shop" does not own "bank.example.com".',
        "Grant it in fleet.yaml, or use another.",
    ),
    Code(
        "path-reserved",
        "The path belongs to the control plane: ACME servers look there for the proof of a name.",
        '"/.well-known/acme-challenge/" is kept for the control plane, which proves names there (ACME).',
        "Use another path; a prefix above it is fine.",
    ),
    Code(
        "port-not-granted",
        "The fleet does not let the team use that port.",
        'team "shop" may not use port 22.',
        "Use a port within the team's ranges (fleet.yaml).",
    ),
    Code(
        "image-not-granted",
        "The fleet does not let the team run that image.",
        'team "shop" may not run image "nginx:1.29" (docker.io/library/nginx).',
        "Grant it in fleet.yaml, or use another.",
    ),
    Code(
        "mount-reserved",
        "A program has a volume or a file where the server's system lies, or one of them in another.",
        "a program can have nothing at /usr/bin: it is at, above or below /usr, which is the system's.",
        "Use a path of its own, such as /srv/data.",
    ),
    Code(
        "name-not-owned",
        "A certificate holds a name that belongs to nobody in the fleet.",
        'nobody in the fleet owns "example.org".',
        "Use names below the domain, or grant the host to a team.",
    ),
    Code(
        "service-name-not-granted",
        "A deployment lists a name for its certificate that is neither its agents' nor a host of its team.",
        'the certificate of deployment "orders" may not name "bank.example.com".',
        "List only hosts that routes of the team send to the deployment.",
    ),
    Code(
        "service-name-unrouted",
        "Warning: a name is listed for a deployment's certificate, and no route of the team sends it there.",
        'no route of team "shop" sends "pay.example.com" here, so the certificate does not carry it.',
        "Add the route, or take the name out.",
    ),
    Code(
        "mongodb-upgrade-refused",
        "A database asks for a version that MongoDB does not let open the data of the version in service.",
        "MongoDB 7.0 cannot open data of 5.0: releases are upgraded one after the other.",
        "Take one major release at a time; restore a backup into a new deployment to go back.",
    ),
    Code(
        "mongodb-too-old",
        "A database asks for a release that takes no new certificate while it runs.",
        'database "orders" asks for MongoDB 4.4, and 5.0 is the oldest that runs.',
        "Write 5.0 or a later release.",
    ),
    Code(
        "mongodb-moves",
        "A database asks for another runtime than the one in service, where its data would not be found.",
        'database "orders" runs as container, and its data does not go along to process.',
        "Restore a backup into a new deployment.",
    ),
    Code(
        "mongodb-one-at-a-time",
        "A database is rolled out blue-green; two mongod cannot have one data directory.",
        'database "orders" cannot be rolled out blue-green: two mongod cannot have one data directory.',
        "Write strategy: recreate, or leave it out.",
    ),
    Code(
        "mongodb-one-port",
        "A database lists several ports; mongod listens at one.",
        'database "orders" lists 2 ports, and mongod listens at one.',
        "Keep one port.",
    ),
    Code(
        "mongodb-user-reserved",
        "A database lists a user twice, or one that the agent keeps for itself.",
        'user "shop" of database "shop" is listed twice.',
        "Use another name.",
    ),
    Code(
        "entry-point-shared",
        "Two kinds of traffic share an entry point, so one could take the other's requests.",
        'entryPoints.tcp.smtp is "websecure", and so is entryPoints.https.',
        "Give each its own entry point.",
    ),
)
CONFLICTS: Final = (
    Code(
        "host-taken",
        "Another route answers the same requests, or the host belongs to another team.",
        '"a.example.com" belongs to team "data": routes/data/a.yaml answers "a.example.com".',
        "Choose another host, or make one of the routes more specific.",
    ),
    Code("port-taken", "Another deployment has that port of the agent.",
         'port 8081 of agent "vps-1" is taken by deployments/shop/api.yaml.', "Choose another host port."),
    Code("directory-taken", "Another deployment has its certificate in that directory of the agent, above or below it.",
         'directory /etc/tls/api of agent "vps-1" is taken: deployments/shop/api.yaml has its files in /etc/tls/api.',
         "Choose another directory, beside it."),
    Code("certificate-taken", "Another certificate is for the same name.",
         'a certificate for "*.app.example.com" exists already: certificates/apps.yaml.',
         "Name each host in one certificate only."),
    Code("identity-taken", "Two agents have the same key.",
         "the key of this agent is the key of agents/vps-2.yaml as well.", "Enrol the copied machine again."),
    Code("contested", "Warning: another new object wants the same and was kept out; which one is right is for people.",
         'routes/shop/b.yaml claims "a.example.com" as well; this file sorts first and keeps it.',
         "If the other one is right, change this one."),
)  # fmt: skip
COMPILING: Final = (
    Code("invalid-htpasswd", "The secret of basicAuth is not an htpasswd file that Traefik can use.",
         "line 1 of the secret is not user:hash with a bcrypt (cost 4 to 14), apr1 or SHA hash.",
         "Make it with htpasswd -B, and seal it again."),
    Code("invalid-path", "A path cannot be matched.",
         "a percent sign starts two hexadecimal digits.", "Write what the message asks for."),
    Code("invalid-transport", "The transport to the backend contradicts the route's type or TLS mode.",
         "TLS inside TLS.", "Write what the message asks for."),
    Code("redirect-loop", "The redirect leads back to the same route.",
         "this redirects web.example.com to itself.", "Name another host, or another scheme."),
    Code("unsafe-rule", "A value cannot stand in a rule of Traefik.",
         "this value cannot be matched: write visible ASCII without back-ticks.", "Write visible ASCII."),
    Code("refused-by-traefik", "All checks passed, but a throwaway Traefik did not take the route.",
         'Traefik refuses it: the service "x@file" does not exist.', "Report it: the checks should have said so."),
)  # fmt: skip

SECRETS: Final = (
    Code("plain-secret", "Warning: a value looks like a secret, by its name or its form; whoever reads the repository "
         "knows it.",
         "spec.env.DB_PASSWORD looks like a secret (by its name) and stands here in clear.",
         "Seal it with cloudlunacy secret seal, refer to it under secrets, and change the value."),
)  # fmt: skip

SECTIONS: Final = (
    ("Reading the file", READING),
    ("Where the file lies", PLACE),
    ("Fields", FIELDS),
    ("What it refers to", REFERENCES),
    ("What it may use", OWNERSHIP),
    ("What somebody else has", CONFLICTS),
    ("What stands in clear", SECRETS),
    ("What Traefik makes of it", COMPILING),
)
CODES: Final = {one.code: one for _, section in SECTIONS for one in section}

_HEAD: Final = """\
# Problems

Each problem names file, line, column, a code, what is wrong and what to do. An object with an error is kept out; where
it was in service before, its last good version stays. A warning keeps nothing out. The codes are stable.
"""


def page() -> str:
    """Return the text of ``docs/problems.md``."""
    parts = [_HEAD]
    for title, section in SECTIONS:
        rows = "\n".join(
            f'| <a id="{one.code}"></a>`{one.code}` | {one.meaning} | {_escaped(one.example)} | {one.remedy} |'
            for one in section
        )
        parts.append(f"## {title}\n\n| code | meaning | example | remedy |\n|---|---|---|---|\n{rows}\n")
    return "\n".join(parts)


def _escaped(text: str) -> str:
    """Escape what Markdown would read as a tag, an emphasis or the end of a cell."""
    return text.replace("<", "&lt;").replace("*", "\\*").replace("|", "\\|")
