"""One page for the data-protection officer: what is open, what is overdue, a request more, the certificate of one."""

__all__ = ["PAGE"]

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>Requests for deletion</title><style>
body{font:16px/1.5 system-ui,sans-serif;color:#1a1f26;margin:0 auto;max-width:60rem;padding:1.5rem 1rem}
h1{font-size:1.6rem;margin:0 0 1rem}h2{font-size:1.05rem;margin:1.8rem 0 .6rem;border-top:1px solid
#d8dee5;padding-top:.8rem}
label{display:block;margin:.5rem 0 .2rem;font-weight:600}input,textarea{font:inherit;width:100%;box-sizing:border-box;
padding:.45rem;border:1px solid #b8c1cb;border-radius:4px}button{font:inherit;margin:.8rem .5rem 0 0;padding:.5rem 1rem;
border:0;border-radius:4px;background:#0b5c8a;color:#fff;cursor:pointer}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.35rem .6rem .35rem 0;border-bottom:1px solid #d8dee5;vertical-align:top}
.late{color:#b3261e;font-weight:600}td button{margin:0;padding:.2rem .6rem}
@media(max-width:40rem){td:nth-child(3),th:nth-child(3){display:none}td:nth-child(4){white-space:nowrap}}
#told{min-height:1.5rem;margin:.8rem 0}.wide{overflow-x:auto}
</style></head><body><main><h1>Requests for deletion</h1>
<label for="token">Token</label><input id="token" type="password" autocomplete="off">
<button id="show">Show requests</button><button id="work">Carry out what waits</button>
<div id="told" role="status"></div>
<div class="wide"><table><thead><tr><th>Request</th><th>Status</th><th>Received</th><th>Due</th><th></th></tr></thead>
<tbody id="rows"></tbody></table></div>
<h2>A new request</h2><form id="new"><label for="key">Key</label><input id="key" required pattern="[A-Za-z0-9._:-]+">
<label for="ids">Ids, one a line</label><textarea id="ids" rows="4" required></textarea>
<label for="basis">Legal basis</label><input id="basis" value="GDPR Art. 17(1)"><button>Record</button></form>
</main><script>
const $ = id => document.getElementById(id), day = text => text ? text.slice(0, 10) : "";
async function call(path, options = {}) {
  const headers = {Authorization: "Bearer " + $("token").value, ...options.headers};
  const answer = await fetch(path, {...options, headers}), body = await answer.json();
  if (!answer.ok) throw new Error(typeof body.detail === "string" ? body.detail : "The request is not complete.");
  return body;
}
function tell(work) { $("told").textContent = "..."; work().catch(error => { $("told").textContent = error.message; });
}
async function show() {
  const found = await call("requests"), rows = $("rows");
  rows.replaceChildren(...found.map(one => {
    const row = document.createElement("tr");
    for (const text of [one.key, one.status + (one.reason ? ": " + one.reason : ""), day(one.received), day(one.due)]) {
      const cell = document.createElement("td"); cell.textContent = text; row.append(cell);
    }
    if (one.overdue) row.children[3].className = "late";
    const last = document.createElement("td"); row.append(last);
    if (one.status === "erased") {
      const button = document.createElement("button"); button.textContent = "Certificate"; last.append(button);
      button.onclick = () => tell(async () => {
        const files = await call("requests/" + encodeURIComponent(one.key) + "/certificate");
        const page = URL.createObjectURL(new Blob([files["controller.html"]], {type: "text/html"}));
        window.open(page, "_blank", "noopener"); $("told").textContent = "";
      });
    }
    return row;
  }));
  $("told").textContent = found.length + " requests, " + found.filter(one => one.overdue).length + " overdue.";
}
$("show").onclick = () => tell(show);
$("work").onclick = () => tell(async () => { await call("process", {method: "POST"}); await show(); });
$("new").onsubmit = event => { event.preventDefault(); tell(async () => {
  const lines = $("ids").value.split("\\n").map(x => x.trim()).filter(Boolean);
  await call("requests", {method: "POST", headers: {"Content-Type": "application/json", "Idempotency-Key":
  $("key").value},
    body: JSON.stringify({ids: lines, basis: $("basis").value})});
  $("new").reset(); await show(); }); };
</script></body></html>
"""
