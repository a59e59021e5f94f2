// @ts-check
/* The chosen theme, set before the first paint; a classic script in the head for that reason. */
document.documentElement.dataset.theme = localStorage.getItem("streamlift.theme") ?? "system";
