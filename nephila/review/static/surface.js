// An isosurface of a volume by casting rays through a 3D texture (WebGL 2): no mesh, so that the level moves freely.

const VERTEX = `#version 300 es
in vec2 corner; out vec2 place;
void main() { place = corner; gl_Position = vec4(corner, 0.0, 1.0); }`;

const FRAGMENT = `#version 300 es
precision highp float; precision highp sampler3D;
in vec2 place; out vec4 colour;
uniform sampler3D volume; uniform mat3 turn; uniform float level; uniform float zoom; uniform float side; uniform vec3 paint;
float value(vec3 p) { return texture(volume, p + 0.5).r; }
void main() {
  vec3 origin = turn * vec3(place * 0.5 / zoom, 1.0);
  vec3 ray = turn * vec3(0.0, 0.0, -1.0);
  vec3 a = (-0.5 - origin) / ray, b = (0.5 - origin) / ray;
  vec3 near3 = min(a, b), far3 = max(a, b);
  float from = max(max(near3.x, near3.y), near3.z), to = min(min(far3.x, far3.y), far3.z);
  colour = vec4(0.05, 0.063, 0.075, 1.0);
  if (from >= to) return;
  float stride = 0.8 / side, t = from + 0.5 * stride;
  for (int i = 0; i < 700; i += 1) {
    if (t > to) return;
    if (value(origin + t * ray) > level) break;
    t += stride;
  }
  if (t > to) return;
  float before = t - stride;
  for (int i = 0; i < 5; i += 1) {
    float middle = 0.5 * (before + t);
    if (value(origin + middle * ray) > level) t = middle; else before = middle;
  }
  vec3 p = origin + t * ray; float e = 1.2 / side;
  vec3 slope = vec3(value(p + vec3(e, 0, 0)) - value(p - vec3(e, 0, 0)), value(p + vec3(0, e, 0)) - value(p - vec3(0, e, 0)), value(p + vec3(0, 0, e)) - value(p - vec3(0, 0, e)));
  vec3 normal = normalize(-slope + 1e-6);
  vec3 light = normalize(turn * vec3(-0.5, 0.6, 1.0)), eye = -ray;
  float shade = 0.25 + 0.75 * max(dot(normal, light), 0.0);
  float gloss = pow(max(dot(normal, normalize(light + eye)), 0.0), 24.0) * 0.25;
  colour = vec4(paint * shade * (1.05 - 0.35 * clamp(t - 0.5, 0.0, 1.0)) + gloss, 1.0);
}`;

export class Surface {
  constructor(canvas, paint = [0.42, 0.68, 0.9]) {
    this.canvas = canvas;
    this.gl = canvas.getContext("webgl2", { antialias: false, preserveDrawingBuffer: true });
    this.turn = multiply(rotation(0, -0.5), rotation(1, 0.5));
    this.level = 0.5;
    this.zoom = 1;
    this.paint = paint;
    if (!this.gl) return;
    const gl = this.gl;
    this.program = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
      gl.attachShader(this.program, shader);
    }
    gl.linkProgram(this.program);
    gl.useProgram(this.program);
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([-1, -1, 1, -1, -1, 1, 1, 1]), gl.STATIC_DRAW);
    gl.enableVertexAttribArray(gl.getAttribLocation(this.program, "corner"));
    gl.vertexAttribPointer(gl.getAttribLocation(this.program, "corner"), 2, gl.FLOAT, false, 0, 0);
    this.texture = gl.createTexture();
  }

  get works() {
    return Boolean(this.gl);
  }

  // bytes: side^3, x fastest
  load(bytes, side) {
    const gl = this.gl;
    if (!gl) return;
    this.side = side;
    gl.bindTexture(gl.TEXTURE_3D, this.texture);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    gl.texImage3D(gl.TEXTURE_3D, 0, gl.R8, side, side, side, 0, gl.RED, gl.UNSIGNED_BYTE, bytes);
    for (const [name, how] of [["MIN_FILTER", gl.LINEAR], ["MAG_FILTER", gl.LINEAR], ["WRAP_S", gl.CLAMP_TO_EDGE], ["WRAP_T", gl.CLAMP_TO_EDGE], ["WRAP_R", gl.CLAMP_TO_EDGE]]) {
      gl.texParameteri(gl.TEXTURE_3D, gl[`TEXTURE_${name}`], how);
    }
  }

  later() {
    this.frame ??= requestAnimationFrame(() => ((this.frame = null), this.draw()));
  }

  draw() {
    const gl = this.gl;
    if (!gl || !this.side) return;
    const place = (name) => gl.getUniformLocation(this.program, name);
    gl.viewport(0, 0, this.canvas.width, this.canvas.height);
    gl.uniformMatrix3fv(place("turn"), true, this.turn.flat());
    gl.uniform1f(place("level"), this.level);
    gl.uniform1f(place("zoom"), this.zoom);
    gl.uniform1f(place("side"), this.side);
    gl.uniform3fv(place("paint"), this.paint);
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
  }

  rotate(dx, dy) {
    this.turn = multiply(multiply(this.turn, rotation(0, -dy)), rotation(1, -dx));
    this.later();
  }

  free() {
    this.gl?.getExtension("WEBGL_lose_context")?.loseContext();
  }
}

function rotation(axis, angle) {
  const [c, s] = [Math.cos(angle), Math.sin(angle)];
  return axis === 0 ? [[1, 0, 0], [0, c, -s], [0, s, c]] : [[c, 0, s], [0, 1, 0], [-s, 0, c]];
}

function multiply(a, b) {
  return a.map((row) => b[0].map((_, j) => row.reduce((sum, v, k) => sum + v * b[k][j], 0)));
}
