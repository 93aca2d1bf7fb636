// Browsers start no workers for pages that are read from a disk (file://), and the search is one. There it
// runs in a hidden frame instead. Material's offline plugin would fetch such a script from the network.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.append(frame)
      this.scope = frame.contentWindow
      const page = this.scope.document
      page.open()
      page.write("<!doctype html><body></body>")
      page.close()
      this.scope.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }))
      const script = page.createElement("script")
      script.src = url
      this.loaded = new Promise((done) => script.addEventListener("load", done))
      page.body.append(script)
    }

    async postMessage(data) {
      await this.loaded
      this.scope.dispatchEvent(new MessageEvent("message", { data }))
    }
  }
}
