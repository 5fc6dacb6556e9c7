// An isosurface of a volume with three.js: rays through a 3D texture, cast in the faces of the volume's box. There is no mesh of the
// surface, so that its level moves freely.

import { BoxGeometry, Data3DTexture, Euler, GLSL3, LinearFilter, Mesh, OrthographicCamera, Quaternion, RedFormat, Scene, ShaderMaterial, UnsignedByteType, Vector3, WebGLRenderer } from "./vendor/three.module.min.js";

const VERTEX = `
out vec3 entry; flat out vec3 ray; flat out vec3 light;
void main() {
  mat3 back = transpose(mat3(modelViewMatrix));
  entry = position; ray = back * vec3(0.0, 0.0, -1.0); light = normalize(back * vec3(-0.5, 0.6, 1.0));
  gl_Position = projectionMatrix * modelViewMatrix * vec4(position, 1.0);
}`;

const FRAGMENT = `
precision highp float; precision highp sampler3D;
in vec3 entry; flat in vec3 ray; flat in vec3 light; out vec4 colour;
uniform sampler3D volume; uniform float level; uniform float side; uniform vec3 paint;
float value(vec3 p) { return texture(volume, p + 0.5).r; }
void main() {
  vec3 far3 = max((-0.5 - entry) / ray, (0.5 - entry) / ray);
  float to = min(min(far3.x, far3.y), far3.z);
  float stride = 0.8 / side, t = 0.5 * stride;
  for (int i = 0; i < 700; i += 1) {
    if (t > to) discard;
    if (value(entry + t * ray) > level) break;
    t += stride;
  }
  if (t > to) discard;
  float before = max(t - stride, 0.0);
  for (int i = 0; i < 5; i += 1) {
    float middle = 0.5 * (before + t);
    if (value(entry + middle * ray) > level) t = middle; else before = middle;
  }
  vec3 p = entry + t * ray; float e = 1.2 / side;
  vec3 slope = vec3(value(p + vec3(e, 0, 0)) - value(p - vec3(e, 0, 0)), value(p + vec3(0, e, 0)) - value(p - vec3(0, e, 0)), value(p + vec3(0, 0, e)) - value(p - vec3(0, 0, e)));
  vec3 normal = normalize(-slope + 1e-6);
  float shade = 0.25 + 0.75 * max(dot(normal, light), 0.0);
  float gloss = pow(max(dot(normal, normalize(light - ray)), 0.0), 24.0) * 0.25;
  colour = vec4(paint * shade * (1.05 - 0.35 * clamp(0.5 + dot(p, ray), 0.0, 1.0)) + gloss, 1.0);
}`;

export class Surface {
  constructor(canvas, paint = [0.42, 0.68, 0.9]) {
    this.canvas = canvas;
    this.level = 0.5;
    this.zoom = 1;
    if (!document.createElement("canvas").getContext("webgl2")) return;
    this.renderer = new WebGLRenderer({ canvas, preserveDrawingBuffer: true });
    this.renderer.setClearColor(0x0d1013);
    this.camera = new OrthographicCamera(-0.5, 0.5, 0.5, -0.5, 0, 4);
    this.camera.position.z = 2;
    const uniforms = { volume: { value: null }, level: { value: 0.5 }, side: { value: 1 }, paint: { value: new Vector3(...paint) } };
    this.material = new ShaderMaterial({ glslVersion: GLSL3, vertexShader: VERTEX, fragmentShader: FRAGMENT, uniforms });
    this.box = new Mesh(new BoxGeometry(1, 1, 1), this.material);
    this.box.quaternion.setFromEuler(new Euler(0.5, -0.5, 0, "YXZ"));
    this.scene = new Scene().add(this.box);
  }

  get works() {
    return Boolean(this.renderer);
  }

  // bytes: side^3, x fastest
  load(bytes, side) {
    if (!this.works) return;
    this.texture?.dispose();
    this.texture = new Data3DTexture(bytes, side, side, side);
    Object.assign(this.texture, { format: RedFormat, type: UnsignedByteType, minFilter: LinearFilter, magFilter: LinearFilter, unpackAlignment: 1, needsUpdate: true });
    this.material.uniforms.volume.value = this.texture;
    this.material.uniforms.side.value = side;
  }

  later() {
    this.frame ??= requestAnimationFrame(() => ((this.frame = null), this.draw()));
  }

  draw() {
    if (!this.works || !this.texture) return;
    this.material.uniforms.level.value = this.level;
    this.camera.zoom = this.zoom;
    this.camera.updateProjectionMatrix();
    this.renderer.render(this.scene, this.camera);
  }

  // Turns about the screen's axes, radians: dx to the right, dy downwards.
  rotate(dx, dy) {
    this.box?.quaternion.premultiply(new Quaternion().setFromEuler(new Euler(dy, dx, 0, "YXZ")));
    this.later();
  }

  free() {
    if (!this.works) return;
    cancelAnimationFrame(this.frame);
    this.texture?.dispose();
    this.box.geometry.dispose();
    this.material.dispose();
    this.renderer.dispose();
    this.renderer.forceContextLoss();
    this.renderer = null;
  }
}
