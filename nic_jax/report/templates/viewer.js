'use strict';
const data = JSON.parse(document.getElementById('data').textContent);
const part = (id) => document.getElementById(id);
const levels = Math.ceil(Math.log2(Math.max(data.width, data.height)));
const viewer = OpenSeadragon({
  element: part('slide'),
  drawer: 'canvas',  // pages from disk may not give their pictures to WebGL
  showNavigationControl: false,
  showNavigator: true,
  navigatorPosition: 'TOP_RIGHT',
  navigatorSizeRatio: 0.18,
  navigatorBackground: '#fff',
  maxZoomPixelRatio: 4,
  visibilityRatio: 0.5,
  animationTime: 0.6,
  gestureSettingsMouse: {clickToZoom: false, dblClickToZoom: true},
  tileSources: {
    width: data.width,
    height: data.height,
    tileSize: data.tile,
    minLevel: 0,
    maxLevel: levels,
    getTileUrl: (level, x, y) => `tiles/${level}/${x}_${y}.jpg`,
  },
});

const svg = (name, attributes) => {
  const node = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  return node;
};
// One layer over the slide, in level-0 pixels, moved as the slide is.
const over = svg('svg', {id: 'over'});
const moved = over.appendChild(svg('g', {}));
const saliency = moved.appendChild(svg('g', {}));
const outlines = moved.appendChild(svg('g', {id: 'outlines'}));
viewer.canvas.appendChild(over);
const lines = data.outlines.flat().map((ring) => 'M' + ring.map((at) => at.join(',')).join('L') + 'Z');
for (const style of ['halo', 'edge'])
  outlines.appendChild(svg('path', {class: style, d: lines.join('')}));

function place() {
  const zoom = viewer.viewport.viewportToImageZoom(viewer.viewport.getZoom(true)) / data.step;
  const corner = viewer.viewport.pixelFromPoint(new OpenSeadragon.Point(0, 0), true);
  const x = corner.x - data.origin[0] * zoom, y = corner.y - data.origin[1] * zoom;
  moved.setAttribute('transform', `translate(${x},${y}) scale(${zoom})`);
  if (data.mpp) measure(data.mpp / zoom);
}

function measure(micrometres) {  // of a pixel of the screen
  const longest = 140 * micrometres;
  const power = 10 ** Math.floor(Math.log10(longest));
  const length = [5, 2, 1].map((n) => n * power).find((n) => n <= longest);
  part('bar').style.width = `${length / micrometres}px`;
  part('bar').textContent = length >= 1000 ? `${length / 1000} mm` : `${length} µm`;
}

function choose() {
  const layer = data.layers[part('method').value];
  saliency.replaceChildren();
  if (!layer) return;
  const [left, top, right, bottom] = layer.box;
  saliency.appendChild(svg('image', {
    href: layer.file, x: left, y: top, width: right - left, height: bottom - top,
    preserveAspectRatio: 'none',
  }));
}

const fade = () => { saliency.style.opacity = part('opacity').value / 100; };
part('method').addEventListener('change', choose);
part('opacity').addEventListener('input', fade);
part('drawn')?.addEventListener('change', (event) => {
  outlines.style.display = event.target.checked ? '' : 'none';
});
part('nearer').addEventListener('click', () => viewer.viewport.zoomBy(1.6));
part('farther').addEventListener('click', () => viewer.viewport.zoomBy(1 / 1.6));
part('whole').addEventListener('click', () => viewer.viewport.goHome());
for (const event of ['open', 'update-viewport', 'resize']) viewer.addHandler(event, place);
choose();
fade();
