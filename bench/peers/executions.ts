// A load generator of many executions on our server.
import {
  type ExecutionsConfig,
  type LoadQuestion,
  measureLoad,
  type OpenExecutions,
  openExecutions,
} from '../lib/executions-load.js';
import { answerQuestions } from '../lib/generator-process.js';

const config = JSON.parse(process.argv[2] ?? '') as ExecutionsConfig;

answerQuestions<LoadQuestion, OpenExecutions>(
  async () => await openExecutions(config),
  async ({ executions }, question) => await measureLoad(executions, question),
);
