// The language of the page: what the visitor chose before, else the first of the browser's languages that we speak.
(() => {
  const known = ["zh", "en"];
  const kept = () => { try { return localStorage.getItem("elmd-language"); } catch { return null; } };
  const spoken = [kept(), ...(navigator.languages ?? [navigator.language])].map((l) => (l ?? "").slice(0, 2).toLowerCase());
  const show = (language) => {
    document.documentElement.dataset.elmd = language;
    document.documentElement.lang = language === "zh" ? "zh-CN" : language;
    return language;
  };
  const first = spoken.find((language) => known.includes(language)) ?? known[0];
  show(first);
  window.elmdLanguage = {
    first: () => show(first),
    choose: (language) => {
      try { localStorage.setItem("elmd-language", language); } catch { /* a private window: not kept */ }
      return show(language);
    },
  };
})();
